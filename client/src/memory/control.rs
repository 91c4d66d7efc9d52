//! [`ControlClient`]: topics, settings, sources, pipelines and their tasks.

use super::*;

impl State {
    pub(super) fn create(&mut self, new: NewTopic) -> Result<Topic, ControlError> {
        if !TopicName::is_legal(new.name.as_str()) {
            let why = "letters, digits, '.', '_' and '-', at most 249".into();
            return Err(ControlError::IllegalName { name: new.name.as_str().into(), why });
        }
        if let Owner::Capture(capture, epoch) = new.owner {
            let by = self.leases.get(&capture).copied().unwrap_or_default();
            if epoch < by {
                return Err(ControlError::Fenced { by });
            }
        }
        if let Some((id, there)) = self.by_name(&new.name) {
            match (there.owner, new.owner) {
                (Owner::Capture(have, by), Owner::Capture(want, epoch)) if have == want && epoch < by => {
                    return Err(ControlError::Fenced { by });
                }
                (Owner::Capture(have, _), Owner::Capture(want, _)) if have == want => {}
                (Owner::Nobody, Owner::Nobody) => return Err(ControlError::TopicExists(new.name)),
                (Owner::Nobody, Owner::Capture(..)) if there.partitions.iter().all(|p| p.end == Offset::ZERO) => {}
                _ => return Err(ControlError::Owned(new.name)),
            }
            if let (Owner::Capture(capture, epoch), Some(t)) = (new.owner, self.topics.get_mut(&id)) {
                t.owner = new.owner;
                for p in &mut t.partitions {
                    let fence = &mut p.captures.entry(capture).or_default().0;
                    *fence = epoch.max(*fence);
                }
            }
            return self.describe(id, false).ok_or_else(|| ControlError::Bug("topic vanished".into()));
        }
        let id = TopicId(self.rng.bytes16());
        let count = new.partitions.unwrap_or(1).max(1);
        let partitions = (0..count)
            .map(|_| {
                let mut p = PartitionState::default();
                if let Owner::Capture(capture, epoch) = new.owner {
                    p.captures.insert(capture, (epoch, Position::NONE));
                }
                p
            })
            .collect();
        let configs = new.configs.into_iter().collect();
        self.topics.insert(id, TopicState { name: new.name, owner: new.owner, configs, partitions });
        self.describe(id, true).ok_or_else(|| ControlError::Bug("topic vanished".into()))
    }

    pub(super) fn assign(&mut self, kind: TaskKind, pipeline: PipelineName, node: NodeName) -> Task {
        let same = |t: &&Task| t.kind == kind && t.pipeline == pipeline && t.node == node;
        let task = match self.tasks.values().find(same) {
            Some(t) => Task { epoch: TaskEpoch(t.epoch.0 + 1), ..t.clone() },
            None => {
                let id = TaskId(self.next_task);
                self.next_task += 1;
                Task { id, kind, epoch: TaskEpoch(1), wish: Wish::Run, pipeline, revision: RevisionNo(1), node }
            }
        };
        if let TaskKind::Capture(capture) = kind {
            self.leases.insert(capture, CaptureEpoch(task.epoch.0));
        }
        self.tasks.insert(task.id, task.clone());
        self.tasks_version += 1;
        task
    }

    fn change(&mut self, change: PipelineChange) -> Result<RevisionNo, ControlError> {
        let none = |name: &PipelineName| ControlError::Invalid(format!("no pipeline {name}"));
        match change {
            PipelineChange::Put { name, base, text, captures, sinks, note } => {
                let have = self.pipelines.get(&name).map_or(RevisionNo(0), |p| p.revision);
                if self.pipelines.get(&name).is_some_and(|p| p.text == text) {
                    return Ok(have);
                }
                if base != have {
                    return Err(ControlError::StaleBase { base, have });
                }
                let kept = self.revisions.entry(name.clone()).or_default();
                let revision = RevisionNo(kept.last().map_or(0, |r| r.no.0) + 1);
                // No clock here: the twin's revisions are of no time.
                kept.push(Revision { no: revision, applied_ms: 0, text: text.clone(), note });
                let captures = captures.into_iter().map(|(node, capture)| (node, TaskKind::Capture(capture)));
                let wanted: Vec<(String, TaskKind)> =
                    captures.chain(sinks.into_iter().map(|node| (node, TaskKind::Deliver))).collect();
                let is_wanted = |t: &Task| wanted.iter().any(|(node, kind)| t.node.as_str() == node && t.kind == *kind);
                self.tasks.retain(|_, t| t.pipeline != name || is_wanted(t));
                for (node, kind) in &wanted {
                    let task = self.assign(*kind, name.clone(), node.as_str().into());
                    self.tasks.insert(task.id, Task { revision, ..task });
                }
                self.pipelines.insert(name.clone(), Pipeline { name, revision, text, running: true });
                Ok(revision)
            }
            PipelineChange::Pause { name } | PipelineChange::Resume { name } if !self.pipelines.contains_key(&name) => {
                Err(none(&name))
            }
            PipelineChange::Pause { ref name } | PipelineChange::Resume { ref name } => {
                let running = matches!(change, PipelineChange::Resume { .. });
                let p = self.pipelines.get_mut(name).ok_or_else(|| none(name))?;
                p.running = running;
                let revision = p.revision;
                let wish = if running { Wish::Run } else { Wish::Pause };
                self.tasks.values_mut().filter(|t| t.pipeline == *name).for_each(|t| t.wish = wish);
                self.tasks_version += 1;
                Ok(revision)
            }
            PipelineChange::Again { name, source } => {
                let p = self.pipelines.get(&name).ok_or_else(|| none(&name))?;
                if p.running {
                    return Err(ControlError::Invalid(format!("pipeline {name} runs; it must be paused first")));
                }
                let at = self.incarnations.entry(SourceName::from(source.as_str())).or_insert(1);
                *at += 1;
                Ok(p.revision)
            }
            PipelineChange::Delete { name } => {
                self.tasks.retain(|_, t| t.pipeline != name);
                self.tasks_version += 1;
                self.pipelines.remove(&name).map(|p| p.revision).ok_or_else(|| none(&name))
            }
        }
    }
}

impl ControlClient for MemoryClient {
    fn create_topics(
        &self,
        _who: &Caller,
        topics: Vec<NewTopic>,
    ) -> Fut<'_, Result<Vec<Result<Topic, ControlError>>, ControlError>> {
        let mut state = self.shared.lock();
        let answer = topics.into_iter().map(|t| state.create(t)).collect();
        drop(state);
        self.shared.bump();
        Box::pin(ready(Ok(answer)))
    }

    fn describe_topics(&self, which: TopicsWanted) -> Fut<'_, Result<Vec<Topic>, ControlError>> {
        let state = self.shared.lock();
        let ids: Vec<TopicId> = match which {
            TopicsWanted::All => state.topics.keys().copied().collect(),
            TopicsWanted::Names(names) => names.iter().filter_map(|n| state.by_name(n)).map(|(id, _)| id).collect(),
            TopicsWanted::Ids(ids) => ids,
            TopicsWanted::OwnedBy(capture) => state
                .topics
                .iter()
                .filter(|(_, t)| matches!(t.owner, Owner::Capture(c, _) if c == capture))
                .map(|(id, _)| *id)
                .collect(),
        };
        let answer = ids.into_iter().filter_map(|id| state.describe(id, false)).collect();
        drop(state);
        Box::pin(ready(Ok(answer)))
    }

    fn delete_topics(
        &self,
        _who: &Caller,
        topics: Vec<TopicId>,
    ) -> Fut<'_, Result<Vec<Result<(), ControlError>>, ControlError>> {
        let mut state = self.shared.lock();
        let answer = topics
            .into_iter()
            .map(|id| state.topics.remove(&id).map(|_| ()).ok_or_else(|| ControlError::NoTopic(id.to_string())))
            .collect();
        drop(state);
        self.shared.bump();
        Box::pin(ready(Ok(answer)))
    }

    fn configs(&self, of: Vec<Resource>) -> Fut<'_, Result<Vec<Vec<ConfigEntry>>, ControlError>> {
        let state = self.shared.lock();
        let answer = of
            .iter()
            .map(|r| match r {
                Resource::Broker => Ok(Vec::new()),
                Resource::Topic(name) => {
                    let (_, t) = state.by_name(name).ok_or_else(|| ControlError::NoTopic(name.to_string()))?;
                    let entry = |(k, v): (&String, &String)| ConfigEntry {
                        name: k.clone(),
                        value: Some(v.clone()),
                        is_default: false,
                    };
                    Ok(t.configs.iter().map(entry).collect())
                }
            })
            .collect();
        drop(state);
        Box::pin(ready(answer))
    }

    fn source(&self, _who: &Caller, name: SourceName) -> Fut<'_, Result<(CaptureId, Incarnation), ControlError>> {
        let mut state = self.shared.lock();
        let next = CaptureId(state.next_capture);
        let incarnation = Incarnation(state.incarnations.get(&name).copied().unwrap_or(1));
        let id = *state.sources.entry(name).or_insert(next);
        if id == next {
            state.next_capture += 1;
        }
        drop(state);
        Box::pin(ready(Ok((id, incarnation))))
    }

    fn revisions(&self, of: PipelineName) -> Fut<'_, Result<Vec<Revision>, ControlError>> {
        let answer = self.shared.lock().revisions.get(&of).cloned().unwrap_or_default();
        Box::pin(ready(Ok(answer)))
    }

    fn pipelines(&self) -> Fut<'_, Result<Vec<Pipeline>, ControlError>> {
        let answer = self.shared.lock().pipelines.values().cloned().collect();
        Box::pin(ready(Ok(answer)))
    }

    fn change_pipeline(&self, _who: &Caller, change: PipelineChange) -> Fut<'_, Result<RevisionNo, ControlError>> {
        let answer = self.shared.lock().change(change);
        self.shared.bump();
        Box::pin(ready(answer))
    }
}
