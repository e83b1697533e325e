//! `kvspace why`: what a key holds at a node, and why not something else.

use std::fmt::Write as _;

use clap::Args;
use kvspace_client::{
    Millis, clock,
    hosts::{Bytes, Explanation, Host, Operation, Standing},
};

use super::{
    error::{CliError, FAILED},
    output::Output,
    target::{KeyArg, SpaceTarget},
    transfer::{ago, some},
};

/// Epochs named in one line.
const NAMED_MAX: usize = 4;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kvspace why notes docs/plan.txt")]
pub(crate) struct WhyArgs {
    #[command(flatten)]
    space: SpaceTarget,
    #[command(flatten)]
    key: KeyArg,
}

impl WhyArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let key = self.key.path()?;
        let space = self.space.open().await?;
        let explanation = space.explain(&key).await?;
        let document = serde_json::to_value(&explanation).map_err(|error| CliError::new(FAILED, error.to_string()))?;
        let again = format!("kvspace put {} {}", self.space.text(), self.key.text());
        out.result(&words(&explanation, &again), &document)
    }
}

/// The explanation for people; `again` is the command that writes the key.
fn words(explanation: &Explanation, again: &str) -> String {
    let now = explanation.now_ms;
    let mut text = format!("{} in {}\n", explanation.key, explanation.space);
    let _ = writeln!(text, "at {}, {}", explanation.node, clock::to_rfc3339(now));
    text += "\n";
    held(explanation, &mut text);
    section("Not here yet", &absent(explanation), &mut text);
    section("Refused here", &refused(explanation), &mut text);
    section("Without effect", &without_effect(explanation, again), &mut text);
    section("Before", &before(explanation), &mut text);
    text
}

fn section(title: &str, lines: &[String], text: &mut String) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}:");
    for line in lines {
        let _ = writeln!(text, "  {line}");
    }
}

/// What the key holds.
fn held(explanation: &Explanation, text: &mut String) {
    let wins = explanation.operations.iter().find(|operation| operation.standing == Standing::Wins);
    let Some(winner) = wins else {
        text.push_str(match explanation.operations.is_empty() {
            true => "It holds nothing: no write to it has come here.\n",
            false => "It holds nothing: no write to it counts.\n",
        });
        return;
    };
    let at = clock::to_rfc3339(winner.at_ms);
    let _ = match &winner.value {
        Some(value) => writeln!(text, "It holds {} since {at}.", some(value.size_bytes, "byte")),
        None => writeln!(text, "It was deleted at {at}."),
    };
    let signer = winner.signer.as_ref().map_or("nobody that can be read", |did| did.as_str());
    let _ = writeln!(text, "  signed by  {signer}");
    let _ = writeln!(text, "  taken by   {}", winner.host);
    let vouched = match winner.integrity.as_str() {
        "client-signed" => "client-signed: no host could have changed it".to_owned(),
        _ => format!("{}: that the value is the signer's is the word of the host that took it", winner.integrity),
    };
    let _ = writeln!(text, "  integrity  {vouched}");
    let _ = writeln!(text, "  version    {}", winner.version);
    if let Some(value) = &winner.value {
        let _ = writeln!(text, "  value      {}", value.cid);
    }
    let _ = writeln!(text, "  bytes      {}", bytes(&winner.bytes, explanation.now_ms));
}

fn bytes(bytes: &Bytes, now: Millis) -> String {
    match bytes {
        Bytes::None => "none: it is deleted".to_owned(),
        Bytes::Here => "here".to_owned(),
        Bytes::NotHere => "not here any more; write it again, or ask another host".to_owned(),
        Bytes::Pending { asked } if asked.is_empty() => "on their way; no host could be asked yet".to_owned(),
        Bytes::Pending { asked } => {
            let asked: Vec<_> = asked.iter().map(|asked| format!("{} {}", asked.host, ago(asked.at_ms, now))).collect();
            format!("on their way; asked {}", asked.join(", "))
        }
    }
}

/// What other hosts have, or may have, and this one has not.
fn absent(explanation: &Explanation) -> Vec<String> {
    let now = explanation.now_ms;
    let others = explanation.hosts.iter().filter(|host| !host.is_here && !host.is_revoked);
    let mut lines: Vec<_> = others.filter(|host| !is_settled(host)).map(|host| lag(host, now)).collect();
    for waiting in &explanation.waiting {
        let why = match waiting.clock_ms {
            Some(clock_ms) => {
                let ahead = clock_ms.0.saturating_sub(now.0) / 1000;
                format!("waits: the clock of its host is {ahead} s ahead of this node's")
            }
            None => format!("waits for {}", epochs(&waiting.lacks)),
        };
        lines.push(format!("epoch {} of {} {why}", waiting.epoch, waiting.host));
    }
    if !explanation.missing.is_empty() {
        lines.push(format!("asked for: {}", epochs(&explanation.missing)));
    }
    lines.extend(explanation.forks.iter().map(|fork| {
        format!("{} made two epochs with the number {}: both are held; it was cloned, or means ill", fork.host, fork.n)
    }));
    lines
}

/// Whether a host can hold nothing that is not here.
fn is_settled(host: &Host) -> bool {
    host.is_connected && host.heard.is_some() && host.missing.is_empty()
}

/// How a host stands to this one.
pub(super) fn lag(host: &Host, now: Millis) -> String {
    let connected = if host.is_connected { "connected" } else { "not connected" };
    let heard = match &host.heard {
        None => "never heard of".to_owned(),
        Some(heard) => format!("heard of {}", ago(heard.at_ms, now)),
    };
    let missing = match host.missing.len() {
        0 if host.heard.is_some() => "nothing was missing then".to_owned(),
        0 => "what it has is not known".to_owned(),
        _ => format!("here is missing {}", epochs(&host.missing)),
    };
    let asked = host.asked.as_ref();
    let asked = asked.map(|asked| format!("; asked {} for {}", ago(asked.at_ms, now), asked.what)).unwrap_or_default();
    format!("{} {connected}, {heard}: {missing}{asked}", host.host)
}

fn epochs(epochs: &[kvspace_client::EpochId]) -> String {
    let named: Vec<_> = epochs.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let more = epochs.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", named.join(" "))
}

fn refused(explanation: &Explanation) -> Vec<String> {
    let line = |refused: &kvspace_client::hosts::RefusedEpoch| {
        let from = refused.from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
        format!("epoch {}{from}, {}: {}", refused.epoch, ago(refused.at_ms, explanation.now_ms), refused.reason)
    };
    explanation.refused.iter().map(line).collect()
}

/// Operations that count for nothing, and what to do about it.
fn without_effect(explanation: &Explanation, again: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for operation in &explanation.operations {
        match &operation.standing {
            Standing::Wins | Standing::Superseded => continue,
            Standing::Repeated => lines.push(format!("{}: the same token did it before", named(operation))),
            Standing::Dead { reason } => lines.push(format!("{}: unsound, {reason}", named(operation))),
            Standing::Void { delegation, revocation, rule } => {
                lines.push(format!("{}: void, {rule}", named(operation)));
                lines.push(format!("  revocation {revocation} of the delegation {delegation}"));
                if let Some(value) = &operation.value {
                    lines.push(format!("  the value was {}; write it again: {again} FILE", value.cid));
                }
            }
        }
    }
    lines
}

fn before(explanation: &Explanation) -> Vec<String> {
    let old = explanation.operations.iter().filter(|operation| operation.standing == Standing::Superseded);
    let mut lines: Vec<_> = old.map(named).collect();
    if explanation.has_more {
        lines.push("and more".to_owned());
    }
    lines
}

fn named(operation: &Operation) -> String {
    let what = operation.value.as_ref().map_or("deleted".to_owned(), |value| some(value.size_bytes, "byte"));
    let by = operation.signer.as_ref().map(|signer| format!(" by {signer}")).unwrap_or_default();
    format!("{} {what}{by}", clock::to_rfc3339(operation.at_ms))
}

#[cfg(test)]
mod tests {
    use kvspace_client::{
        BlobHash, EpochId,
        hosts::{Asked, AskedHost, Fork, Heard, RefusedEpoch, ValueRef, WaitingEpoch},
    };

    use super::*;

    const NOW: Millis = Millis(1_800_000_000_000);

    fn did(n: u8) -> kvspace_client::Did {
        kvspace_client::Did::from_ed25519(&[n; 32])
    }

    fn empty() -> Explanation {
        Explanation {
            space: "tinycloud:key:z6MkneMkZqwqRiU5mJzSG3kDwzt9P8C59N4NGTfBLfSGE7c7:notes".parse().expect("a space"),
            key: "a".into(),
            node: did(1),
            now_ms: NOW,
            operations: Vec::new(),
            has_more: false,
            frontier: Vec::new(),
            hosts: Vec::new(),
            missing: Vec::new(),
            waiting: Vec::new(),
            refused: Vec::new(),
            forks: Vec::new(),
        }
    }

    fn put(standing: Standing, bytes: Bytes) -> Operation {
        Operation {
            version: "1.0.x".into(),
            epoch: EpochId::of(b"e"),
            at_ms: NOW,
            host: did(1),
            signer: Some(did(9)),
            integrity: "client-signed".into(),
            value: Some(ValueRef { cid: BlobHash::of(b"hello"), size_bytes: 5 }),
            bytes,
            standing,
        }
    }

    fn host(n: u8) -> Host {
        Host {
            host: did(n),
            delegation: None,
            until_ms: None,
            is_revoked: false,
            is_here: false,
            is_connected: true,
            heard: Some(Heard { at_ms: NOW.plus(-2000), heads: vec![EpochId::of(b"h")] }),
            missing: Vec::new(),
            has_all: true,
            asked: None,
        }
    }

    #[test]
    fn what_a_key_holds_comes_first() {
        assert!(words(&empty(), "").contains("no write to it has come here"));
        let explanation = Explanation { operations: vec![put(Standing::Wins, Bytes::Here)], ..empty() };
        let text = words(&explanation, "");
        for part in ["It holds 5 bytes since 2027-01-15T08:00:00Z", did(9).as_str(), "client-signed", "bytes      here"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("Not here yet") && !text.contains("Without effect"), "{text}");
        let attested = Operation { integrity: "host-attested".into(), ..put(Standing::Wins, Bytes::NotHere) };
        let text = words(&Explanation { operations: vec![attested], ..empty() }, "");
        assert!(text.contains("word of the host") && text.contains("not here any more"), "{text}");
    }

    #[test]
    fn what_is_on_its_way_names_who_was_asked_and_when() {
        let asked = vec![AskedHost { host: did(2), at_ms: NOW.plus(-3000) }];
        let operations = vec![put(Standing::Wins, Bytes::Pending { asked })];
        let far = Host {
            is_connected: false,
            missing: vec![EpochId::of(b"m")],
            asked: Some(Asked { at_ms: NOW.plus(-1000), what: "epochs".into() }),
            ..host(3)
        };
        let hosts = vec![
            Host { is_here: true, heard: None, ..host(1) },
            host(2),
            far,
            Host { is_revoked: true, heard: None, ..host(4) },
        ];
        let text = words(&Explanation { operations, hosts, ..empty() }, "");
        let missing = EpochId::of(b"m").to_string();
        for part in
            ["3 s ago", "not connected, heard of 2 s ago: here is missing", &missing, "asked 1 s ago for epochs"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let absent = text.split("Not here yet").nth(1).expect("something is not here");
        assert_eq!(absent.matches("did:key").count(), 1, "only the host that lags is named: {text}");
    }

    #[test]
    fn epochs_that_wait_and_those_refused_say_why() {
        let waits =
            WaitingEpoch { epoch: EpochId::of(b"w"), host: did(2), lacks: vec![EpochId::of(b"l")], clock_ms: None };
        let early = WaitingEpoch { lacks: Vec::new(), clock_ms: Some(NOW.plus(90_000)), ..waits.clone() };
        let refused =
            RefusedEpoch { epoch: EpochId::of(b"r"), from: Some(did(3)), at_ms: NOW, reason: "forged".into() };
        let forks = vec![Fork { host: did(5), n: 7 }];
        let text = words(&Explanation { waiting: vec![waits, early], refused: vec![refused], forks, ..empty() }, "");
        let lacked = format!("waits for {}", EpochId::of(b"l"));
        for part in [&*lacked, "90 s ahead", "Refused here", "forged", "two epochs with the number 7"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_lost_value_says_how_it_is_written_again() {
        let void = Standing::Void { delegation: "D".into(), revocation: "R".into(), rule: "cut off".into() };
        let dead = Operation { value: None, ..put(Standing::Dead { reason: "expired".into() }, Bytes::None) };
        let operations = vec![put(void, Bytes::Here), dead, put(Standing::Superseded, Bytes::NotHere)];
        let text = words(&Explanation { operations, has_more: true, ..empty() }, "kvspace put notes a");
        for part in [
            "no write to it counts",
            "void, cut off",
            "revocation R of the delegation D",
            "kvspace put notes a FILE",
            "unsound, expired",
            "Before:",
            "and more",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
