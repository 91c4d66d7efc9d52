//! `docs/compatibility.md` shows the table as it is in code.

use catchwater_protocol::versions::{APIS, State};

const PAGE: &str = include_str!("../../../docs/compatibility.md");

#[test]
fn the_page_shows_the_table() {
    let mut table = String::from("| key | API | Kafka 4.3.1 | Catchwater |\n|---|---|---|---|\n");
    for api in &APIS {
        let range = |min, max| format!("{min}-{max}");
        let ours = match api.state {
            State::NotYet => "not yet".to_owned(),
            State::Served if api.served_min == api.min => range(api.min, api.max),
            State::Served => format!("{} (shows {})", range(api.served_min, api.max), range(api.min, api.max)),
        };
        table.push_str(&format!("| {} | {} | {} | {ours} |\n", api.key, api.name, range(api.min, api.max)));
    }
    let shown = PAGE.split("<!-- table -->\n").nth(1).unwrap_or_default();
    assert!(shown == table, "docs/compatibility.md must show, between its two table marks:\n{table}");
}
