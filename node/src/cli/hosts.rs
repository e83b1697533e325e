//! `kvspace space hosts`, `add-host` and `remove-host`.

use std::time::Duration;

use clap::Args;
use kvspace_client::{
    After, Client, Did, Space,
    hosts::{Host, Hosts},
};
use serde_json::json;

use super::{
    error::{CliError, FAILED, NOT_FOUND, USAGE},
    output::{Output, is_watched, progress_line},
    revoke::{Ask, revoke},
    target::SpaceTarget,
    why::lag,
};

/// How often the present host is asked how far it is.
const POLL: Duration = Duration::from_millis(500);
/// Delegations that may name one host: each is revoked.
const DELEGATIONS_MAX: usize = 16;

#[derive(Debug, Args)]
pub(crate) struct HostsArgs {
    #[command(flatten)]
    space: SpaceTarget,
}

#[derive(Debug, Args)]
pub(crate) struct AddHostArgs {
    #[command(flatten)]
    space: SpaceTarget,
    /// The new host: the address of its interface for clients, or its did:key
    host: HostArg,
    /// Another node that is to know of it; may be given again
    #[arg(long, value_name = "URL")]
    also: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveHostArgs {
    #[command(flatten)]
    space: SpaceTarget,
    /// The host: the address of its interface for clients, or its did:key
    host: HostArg,
    /// Waits so long until everything that it took in is at the other host
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    wait_s: u32,
    /// Does not wait: what only this host has is lost
    #[arg(long)]
    force: bool,
    /// Does not ask
    #[arg(long)]
    yes: bool,
}

/// A node, by name or by address.
#[derive(Debug, Clone)]
enum HostArg {
    Did(Did),
    Url(String),
}

impl std::str::FromStr for HostArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("http://") || text.starts_with("https://") {
            return Ok(Self::Url(text.to_owned()));
        }
        let did = text.parse::<Did>().ok().filter(|did| did.ed25519().is_some());
        did.map(Self::Did).ok_or_else(|| format!("`{text}` is neither http://HOST:PORT nor did:key:z6Mk…"))
    }
}

impl HostArg {
    /// Its DID, and the way to it if that is known.
    async fn resolve(&self) -> Result<(Did, Option<Client>), CliError> {
        match self {
            Self::Did(did) => Ok((did.clone(), None)),
            Self::Url(url) => {
                let client = Client::new(url)?;
                let named = client.info().await?.node_id.and_then(|id| id.parse().ok());
                let did = named.ok_or_else(|| {
                    CliError::new(FAILED, format!("{url} does not say which node it is")).advise("give its did:key")
                })?;
                Ok((did, Some(client)))
            }
        }
    }
}

impl HostsArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let hosts = self.space.open().await?.hosts().await?;
        let lines: String = hosts.hosts.iter().map(|host| format!("{}\n", line(host, &hosts))).collect();
        let document = serde_json::to_value(&hosts).map_err(|error| CliError::new(FAILED, error.to_string()))?;
        out.result(&lines, &document)
    }
}

/// One host for people.
fn line(host: &Host, hosts: &Hosts) -> String {
    if host.is_revoked {
        return format!("{} removed", host.host);
    }
    if host.is_here {
        return format!("{} here", host.host);
    }
    let behind = match (&host.heard, host.has_all) {
        (None, _) => "",
        (Some(_), true) => "; it had all that is here",
        (Some(_), false) => "; it had not yet all that is here",
    };
    format!("{}{behind}", lag(host, hosts.now_ms))
}

impl AddHostArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let (owner, here) = (self.space.owner()?, self.space.client()?);
        let space = self.space.id(&owner)?;
        if *space.owner() != owner.did() {
            return Err(not_owner(&owner.did(), &space));
        }
        let (host, there) = self.host.resolve().await?;
        let token = Client::sign_host(&owner, &space, &host)?;
        let mut told = Vec::new();
        if let Some(there) = there {
            let taken = there.delegate(&token).await?;
            if taken.skipped.iter().any(|skipped| skipped == space.as_str()) {
                return Err(kvspace_client::Error::NotCreated(space).into());
            }
            told.push(there);
        }
        let also = self.also.iter().map(|url| Client::new(url)).collect::<Result<Vec<_>, _>>()?;
        for node in [here].into_iter().chain(also) {
            if told.iter().any(|known| known.node() == node.node()) {
                continue;
            }
            node.delegate(&token).await.map_err(|error| {
                let done: Vec<_> = told.iter().map(Client::node).collect();
                let done = if done.is_empty() { "nobody".to_owned() } else { done.join(" ") };
                let error = CliError::from(error);
                let message = format!("{}: {}", node.node(), error.message);
                CliError { message, ..error }.advise(format!("{done} has the delegation; run the command again"))
            })?;
            told.push(node);
        }
        let told: Vec<_> = told.iter().map(Client::node).collect();
        let object = json!({ "space": space, "host": host, "delegation": token.address(), "told": told });
        out.result(&format!("host\t{host}\n"), &object)?;
        out.note("hosts find each other in the local network, or by network.peers; kvspace space hosts shows how far");
        Ok(())
    }
}

fn not_owner(did: &Did, space: &kvspace_client::SpaceId) -> CliError {
    CliError::new(FAILED, format!("{did} does not own {space}: only the owner says who hosts it"))
        .advise("use the owner's key: --key NAME")
}

impl RemoveHostArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let owner = self.space.owner()?;
        let space = self.space.open().await?;
        if *space.id().owner() != owner.did() {
            return Err(not_owner(&owner.did(), space.id()));
        }
        let (host, _) = self.host.resolve().await?;
        if !self.force {
            self.wait_until_all_is_here(&space, &host).await?;
        }
        let ask = if self.yes { Ask::Never } else { Ask::IfVoided };
        let mut ended = Vec::new();
        // Several delegations may name it.
        while ended.len() < DELEGATIONS_MAX
            && let Some(entry) = find(&space.hosts().await?, &host)
            && let Some(delegation) = entry.delegation
            && !ended.contains(&delegation)
        {
            revoke(out, &space, &owner, &delegation, After::NodeFrontier, ask).await?;
            ended.push(delegation);
        }
        if ended.is_empty() {
            let message = format!("{host} is no host of {} that a delegation names", space.id());
            return Err(CliError::new(NOT_FOUND, message).advise("look: kvspace space hosts"));
        }
        let object = json!({ "space": space.id(), "host": host, "revoked": ended });
        out.result(&format!("removed\t{host}\n"), &object)
    }

    /// Waits until the node that is asked has everything that the leaving host took in.
    async fn wait_until_all_is_here(&self, space: &Space, host: &Did) -> Result<(), CliError> {
        let mut waited = Duration::ZERO;
        loop {
            let hosts = space.hosts().await?;
            let Some(entry) = find(&hosts, host) else { return Ok(()) };
            if entry.is_here {
                let message = format!("{host} is the node that is asked");
                return Err(CliError::new(USAGE, message)
                    .advise("ask another host with --node URL, which is then known to have everything"));
            }
            if is_settled(entry) {
                return Ok(());
            }
            let state = lag(entry, hosts.now_ms);
            if waited >= Duration::from_secs(self.wait_s.into()) {
                clear_progress();
                return Err(CliError::new(FAILED, format!("not removed: {state}"))
                    .advise("wait longer with --wait-s, or lose what only that host has with --force"));
            }
            if is_watched() {
                progress_line(&state);
            }
            tokio::time::sleep(POLL).await;
            waited += POLL;
        }
    }
}

fn clear_progress() {
    if is_watched() {
        progress_line("");
    }
}

fn find<'a>(hosts: &'a Hosts, host: &Did) -> Option<&'a Host> {
    hosts.hosts.iter().find(|entry| entry.host == *host && !entry.is_revoked)
}

/// Whether nothing that a host has is missing at the node that is asked.
fn is_settled(host: &Host) -> bool {
    host.is_connected && host.heard.is_some() && host.missing.is_empty()
}

#[cfg(test)]
mod tests {
    use kvspace_client::{EpochId, Millis, hosts::Heard};

    use super::*;

    fn host() -> Host {
        Host {
            host: Did::from_ed25519(&[1; 32]),
            delegation: None,
            until_ms: None,
            is_revoked: false,
            is_here: false,
            is_connected: true,
            heard: Some(Heard { at_ms: Millis(0), heads: Vec::new() }),
            missing: Vec::new(),
            has_all: true,
            asked: None,
        }
    }

    #[test]
    fn a_host_is_named_by_address_or_did() {
        assert!(matches!("http://a:1".parse(), Ok(HostArg::Url(_))));
        assert!(matches!(host().host.as_str().parse(), Ok(HostArg::Did(_))));
        for bad in ["", "a:1", "did:web:a", "did:pkh:eip155:1:0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"] {
            assert!(bad.parse::<HostArg>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_may_leave_when_it_is_reached_and_nothing_of_it_is_missing() {
        assert!(is_settled(&host()));
        assert!(!is_settled(&Host { is_connected: false, ..host() }));
        assert!(!is_settled(&Host { heard: None, ..host() }));
        assert!(!is_settled(&Host { missing: vec![EpochId::of(b"m")], ..host() }));
    }

    #[test]
    fn a_removed_host_is_not_found_again() {
        let space = "tinycloud:key:z6MkneMkZqwqRiU5mJzSG3kDwzt9P8C59N4NGTfBLfSGE7c7:notes".parse().expect("a space");
        let removed = Host { is_revoked: true, ..host() };
        let mut hosts = Hosts { space, now_ms: Millis(0), frontier: Vec::new(), hosts: vec![removed] };
        assert!(find(&hosts, &host().host).is_none());
        assert!(line(&hosts.hosts[0], &hosts).ends_with("removed"));
        hosts.hosts.push(host());
        assert!(find(&hosts, &host().host).is_some());
        assert!(line(&hosts.hosts[1], &hosts).contains("had all that is here"));
    }
}
