//! `kvspace status`.

use clap::Args;
use serde_json::Value;

use super::{error::CliError, output::Output, target::Operator};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kvspace status --operator http://127.0.0.1:8421")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    operator: Operator,
}

impl StatusArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let status = self.operator.client()?.status().await?;
        out.result(&table(&status), &status)
    }
}

/// An object as lines of name and value; members of members have names with dots.
fn table(status: &Value) -> String {
    let mut rows = Vec::new();
    flatten("", status, &mut rows);
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    rows.into_iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

fn flatten(name: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    let inner = |member: &str| if name.is_empty() { member.to_owned() } else { format!("{name}.{member}") };
    match value {
        Value::Object(members) => members.iter().for_each(|(member, value)| flatten(&inner(member), value, rows)),
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            items.iter().enumerate().for_each(|(i, value)| flatten(&inner(&i.to_string()), value, rows));
        }
        Value::Array(items) => rows.push((name.to_owned(), items.iter().map(plain).collect::<Vec<_>>().join(" "))),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            rows.push((name.to_owned(), plain(value)))
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_as_a_table() {
        let status = serde_json::json!({ "did": "did:key:z", "spaces": { "active": 2 }, "p2p": ["a", "b"], "x": [{ "y": null }] });
        assert_eq!(
            table(&status),
            "did            did:key:z\np2p            a b\nspaces.active  2\nx.0.y          null\n"
        );
    }
}
