//! S24: passwords and values of rows in places where they have no business. A pipeline with a password of each kind of
//! reference, a wrong one, and rows that the target refuses, through starts, errors, a kill and every page and command that
//! tells of it: no password anywhere but in the variable and the file it came from, no value in a log, a metric or an error.

use catchwater_tests::broker::{Broker, Settings, binary};
use catchwater_tests::pg::Database;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(90);
const PASSWORDS: [&str; 4] = ["pwcanaryenv1", "pwcanaryfile2", "pwcanarywrong3", "pwcanaryplain4"];
const VALUE: &str = "valuecanary5";

/// Everything the node and its commands have said so far.
#[derive(Default)]
struct Said(Vec<(String, String)>);

impl Said {
    fn add(&mut self, whence: impl Into<String>, text: impl Into<String>) {
        self.0.push((whence.into(), text.into()));
    }

    fn page(&mut self, node: &Broker, path: &str) -> String {
        let out = Command::new("curl").args(["-s", &format!("http://{}{path}", node.http())]).output().expect("curl");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        self.add(path, text.clone());
        text
    }

    fn command(&mut self, node: &Broker, words: &[&str]) -> String {
        let out = Command::new(binary().expect("binary"))
            .args(words)
            .env("CATCHWATER_HTTP", node.http())
            .env("CATCHWATER_BOOTSTRAP", node.kafka())
            .output()
            .expect("the command");
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        self.add(words.join(" "), text.clone());
        text
    }

    /// Pages and commands that tell of a pipeline.
    fn all(&mut self, node: &Broker) {
        for path in
            ["/metrics", "/readyz", "/api/v1/lag", "/api/v1/pipelines", "/api/v1/pipelines/shop", "/api/v1/groups"]
        {
            self.page(node, path);
        }
        self.page(node, "/api/v1/pipelines/shop/revisions");
        for words in [
            "pipeline list",
            "pipeline show shop",
            "pipeline revisions shop",
            "lag",
            "lag -o json",
            "topic list",
            "audit",
        ] {
            self.command(node, &words.split(' ').collect::<Vec<_>>());
        }
    }
}

fn files_with(folder: &Path, needle: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for path in std::fs::read_dir(folder).expect("folder").filter_map(Result::ok).map(|e| e.path()) {
        if path.is_dir() {
            out.extend(files_with(&path, needle));
        } else if std::fs::read(&path).is_ok_and(|b| b.windows(needle.len()).any(|w| w == needle.as_bytes())) {
            out.push(path);
        }
    }
    out
}

fn until(node: &Broker, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "{what}\n{}", node.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The same database as another user; what stands in the file in the place of the password.
fn url(of: &Database, user: &str, password: &str) -> String {
    let (_, rest) = of.url().split_once('@').expect("a URL with a user");
    format!("postgres://{user}:{password}@{rest}")
}

#[test]
fn no_password_and_no_value_is_told_or_kept() {
    let Some(source) = Database::create("pg15", "secrets_from") else { return };
    let Some(target) = Database::create("pg15", "secrets_to") else { return };
    let [env, file, wrong, plain] = PASSWORDS;
    let (reader, writer) = (format!("{}_r", source.name()), format!("{}_w", target.name()));
    // The server asks these for their passwords.
    source
        .pg
        .run(&format!(
            "DO $$ BEGIN CREATE ROLE catchwater_scram; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             CREATE ROLE {reader} LOGIN SUPERUSER PASSWORD '{env}' IN ROLE catchwater_scram;
             CREATE ROLE {writer} LOGIN SUPERUSER PASSWORD '{file}' IN ROLE catchwater_scram;
             CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, '{VALUE}')"
        ))
        .expect("roles and rows");
    target.pg.run("CREATE TABLE t (id int PRIMARY KEY, v varchar(20) CHECK (id <> 3))").expect("a table");
    let mut node = Broker::start_with(Settings {
        env: vec![("SECRETS_ENV".into(), env.into()), ("SECRETS_WRONG".into(), wrong.into())],
        ..Settings::default()
    });
    let folder = node.data_dir().with_file_name("files");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("password"), format!("{file}\n")).expect("the password's file");
    let yaml = |sink: &str, policy: &str| {
        format!(
            "version: 1\npipeline: shop\nsources:\n  {0}:\n    postgres: {{ url: \"{1}\", tables: [t] }}\nsinks:\n  copy:\n    from: {0}\n    on_error: {{ row: {policy} }}\n    postgres: {{ url: \"{2}\" }}\n",
            source.name(),
            url(&source, &reader, "${env:SECRETS_ENV}"),
            url(&target, &writer, sink)
        )
    };
    let path = folder.join("shop.yaml");
    let name = path.display().to_string();
    let write = |sink: &str, policy: &str| std::fs::write(&path, yaml(sink, policy)).expect("the file");
    let mut said = Said::default();

    // A password in the file is refused, and not shown; neither is a wrong one.
    write(plain, "stop");
    for verb in ["validate", "plan", "apply"] {
        let told = said.command(&node, &[verb, &name]);
        assert!(told.contains("CW03"), "{verb}: {told}");
    }
    write("${env:SECRETS_WRONG}", "stop");
    let told = said.command(&node, &["plan", &name]);
    assert!(told.contains("CW0602"), "{told}");
    said.command(&node, &["apply", &name]);
    // Rows come, and one that the target refuses; the sink stands.
    write("${file:password}", "stop");
    // Others can read the file: told, until they cannot. The node's own files they cannot.
    let mode = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    };
    mode(&folder, 0o755);
    mode(&folder.join("password"), 0o644);
    let told = said.command(&node, &["plan", &name]);
    assert!(told.contains("warning[CW0333]") && told.contains("chmod 600 "), "{told}");
    mode(&folder.join("password"), 0o600);
    let told = said.command(&node, &["plan", &name]);
    assert!(told.contains("plan hash") && !told.contains("CW0333"), "{told}");
    let of_node = std::fs::metadata(node.data_dir()).expect("the data directory").permissions().mode();
    assert_eq!(of_node & 0o077, 0, "{of_node:o}");
    let told = said.command(&node, &["apply", &name, "--allow-destructive"]);
    assert!(told.contains("applied"), "{told}");
    let rows = |n: &str| target.pg.one("SELECT count(*) FROM t").is_ok_and(|c| c == n);
    until(&node, "the first row", || rows("1"));
    source.pg.run(&format!("INSERT INTO t VALUES (2, '{VALUE}b'), (3, '{VALUE}c')")).expect("rows");
    until(&node, "the sink stands", || said.page(&node, "/api/v1/lag").contains("CW0609"));
    said.all(&node);
    // Set aside instead, over a kill.
    write("${file:password}", "park_key");
    said.command(&node, &["diff", &name]);
    said.command(&node, &["apply", &name]);
    until(&node, "the others go on", || rows("2"));
    node.kill();
    node.restart().expect("start");
    source.pg.run(&format!("INSERT INTO t VALUES (4, '{VALUE}d')")).expect("a row");
    until(&node, "it goes on", || rows("3"));
    said.all(&node);
    said.command(&node, &["dlq", "list", "shop"]);
    // The source refuses it from now on.
    source
        .pg
        .run(&format!("ALTER ROLE {reader} PASSWORD 'another'"))
        .and_then(|()| source.pg.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"))
        .expect("another password");
    until(&node, "the source is refused", || said.page(&node, "/api/v1/lag").contains("CW0502"));
    said.all(&node);
    // The run itself must have been one in which there was something to tell: the line comes a moment after the state.
    until(&node, "an error is logged", || node.log().contains("task.failed"));
    said.add("log", node.log());

    for (whence, text) in &said.0 {
        for canary in PASSWORDS.iter().chain([&VALUE]) {
            let shows_rows = *canary == VALUE && whence.starts_with("dlq");
            assert!(shows_rows || !text.contains(canary), "{whence} tells {canary}:\n{text}");
        }
    }
    for password in PASSWORDS {
        assert_eq!(files_with(&node.data_dir(), password), [] as [PathBuf; 0], "{password} is kept");
    }
    node.kill();
    drop((source, target));
    if let Some(admin) = Database::create("pg15", "secrets_admin") {
        admin.pg.run(&format!("DROP ROLE {reader}; DROP ROLE {writer}")).expect("the roles go");
    }
}
