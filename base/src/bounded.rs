//! Pure. A queue with a named bound: pushing above it is an answer, never growth.

use std::collections::VecDeque;

#[derive(Debug)]
pub struct Queue<T> {
    name: &'static str,
    bound: usize,
    items: VecDeque<T>,
}

/// The queue was full; the item comes back to its owner.
#[derive(Debug, PartialEq, Eq)]
pub struct Full<T>(pub T);

impl<T> Queue<T> {
    pub fn new(name: &'static str, bound: usize) -> Self {
        Queue { name, bound, items: VecDeque::new() }
    }
    pub fn push(&mut self, item: T) -> Result<(), Full<T>> {
        if self.items.len() >= self.bound {
            return Err(Full(item));
        }
        self.items.push_back(item);
        Ok(())
    }
    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }
    pub fn len(&self) -> usize {
        self.items.len()
    }
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
    pub fn name(&self) -> &'static str {
        self.name
    }
    pub fn iter(&self) -> std::collections::vec_deque::Iter<'_, T> {
        self.items.iter()
    }
}
