//! `kvspace peers`: the nodes that a running node speaks to.

use clap::{Args, Subcommand};
use kvspace_client::{Blocked, Client, Did, Millis, clock};
use serde_json::{Value, json};

use super::{error::CliError, output::Output, target::Operator, transfer::ago};

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  kvspace peers\n  kvspace peers block did:key:z6MkneMkZqwqRiU5mJzSG3kDwzt9P8C59N4NGTfBLfSGE7c7",
    args_conflicts_with_subcommands = true
)]
pub(crate) struct PeersArgs {
    #[command(subcommand)]
    command: Option<PeersCommand>,
    #[command(flatten)]
    operator: Operator,
}

#[derive(Debug, Subcommand)]
enum PeersCommand {
    /// Cuts a node off, until this one stops or it is let back
    #[command(after_help = "Example:\n  kvspace peers block did:key:z6MkneMkZqwqRiU5mJzSG3kDwzt9P8C59N4NGTfBLfSGE7c7")]
    Block(PeerArgs),
    /// Lets a node come back
    #[command(
        after_help = "Example:\n  kvspace peers unblock did:key:z6MkneMkZqwqRiU5mJzSG3kDwzt9P8C59N4NGTfBLfSGE7c7"
    )]
    Unblock(PeerArgs),
}

#[derive(Debug, Args)]
struct PeerArgs {
    /// The node
    #[arg(value_name = "DID")]
    peer: Did,
    #[command(flatten)]
    operator: Operator,
}

impl PeersArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        match self.command {
            None => {
                let peers = self.operator.client()?.peers().await?;
                out.result(&table(&peers, clock::now()), &peers)
            }
            Some(PeersCommand::Block(args)) => args.set(out, Blocked::Yes).await,
            Some(PeersCommand::Unblock(args)) => args.set(out, Blocked::No).await,
        }
    }
}

impl PeerArgs {
    async fn set(self, out: &Output, blocked: Blocked) -> Result<(), CliError> {
        let operator: Client = self.operator.client()?;
        operator.set_blocked(&self.peer, blocked).await?;
        let is_blocked = blocked == Blocked::Yes;
        let word = if is_blocked { "blocked" } else { "unblocked" };
        out.result(&format!("{word}\t{}\n", self.peer), &json!({ "peer": self.peer, "is_blocked": is_blocked }))
    }
}

/// A line for each peer.
fn table(document: &Value, now: Millis) -> String {
    let peers = document["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if peers.is_empty() {
        return "no other node is known\n".to_owned();
    }
    peers.iter().map(|peer| format!("{}\n", line(peer, now))).collect()
}

fn line(peer: &Value, now: Millis) -> String {
    let time = |name: &str| peer[name].as_i64().map(Millis);
    let count = |name: &str| peer[name].as_u64().unwrap_or_default();
    let mut parts = vec![peer["peer"].as_str().unwrap_or("?").to_owned()];
    parts.push(match (time("connected_ms"), peer["is_blocked"] == true, time("next_dial_ms")) {
        (_, true, _) => "blocked".to_owned(),
        (Some(since), false, _) => format!("connected {}", ago(since, now)),
        (None, false, Some(next)) => {
            format!("not connected, dialled again in {} s", next.0.saturating_sub(now.0).max(0) / 1000)
        }
        (None, false, None) => "not connected".to_owned(),
    });
    if let Some(compared) = time("compared_ms") {
        parts.push(format!("compared {}", ago(compared, now)));
    }
    for (name, words) in
        [("spaces_behind", "spaces differ"), ("epochs_to_push", "epochs to push"), ("epochs_refused", "epochs refused")]
    {
        if count(name) > 0 {
            parts.push(format!("{} {words}", count(name)));
        }
    }
    if let Some(error) = peer["last_error"].as_str() {
        parts.push(format!("last error: {error}"));
    }
    let addresses = peer["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str);
    parts.extend(addresses.map(str::to_owned));
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_one_line_that_says_how_it_stands() {
        let now = Millis(100_000);
        assert_eq!(table(&json!({ "peers": [] }), now), "no other node is known\n");
        let peer = json!({ "peer": "did:key:z", "connected_ms": 40_000, "addresses": ["/ip4/1.2.3.4/tcp/1"],
            "spaces_behind": 2, "epochs_to_push": 0, "compared_ms": null, "last_error": null });
        assert_eq!(line(&peer, now), "did:key:z  connected 1 min ago  2 spaces differ  /ip4/1.2.3.4/tcp/1");
        let peer = json!({ "peer": "did:key:z", "next_dial_ms": 105_000, "last_error": "refused" });
        assert_eq!(line(&peer, now), "did:key:z  not connected, dialled again in 5 s  last error: refused");
        let peer = json!({ "peer": "did:key:z", "is_blocked": true, "connected_ms": 1 });
        assert_eq!(line(&peer, now), "did:key:z  blocked");
    }
}
