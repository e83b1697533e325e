//! What a node says of a space's hosts, and why a key reads as it does: the documents of `/v0/hosts`, `/v0/explain` and
//! `/v0/revoke/preview`. Times are milliseconds since 1970.

use kvspace_protocol::id::{Address, BlobHash, Did, EpochId, Millis, SpaceId};
use serde::{Deserialize, Serialize};

/// The document of `/v0/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts {
    /// The space.
    pub space: SpaceId,
    /// The time at the node that answers.
    pub now_ms: Millis,
    /// The epochs that are the heads of the space there.
    pub frontier: Vec<EpochId>,
    /// The hosts, the one that answers among them.
    pub hosts: Vec<Host>,
}

/// A host of a space, as another host knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The host.
    pub host: Did,
    /// The delegation that names it; `None` for the owner's own key.
    pub delegation: Option<Address>,
    /// When that ends; `None`: it does not.
    pub until_ms: Option<Millis>,
    /// Whether the owner has taken it away.
    pub is_revoked: bool,
    /// Whether it is the node that answers.
    pub is_here: bool,
    /// Whether it is connected to the node that answers.
    pub is_connected: bool,
    /// Its heads, when they were last heard.
    pub heard: Option<Heard>,
    /// Heads of its that are not held here.
    pub missing: Vec<EpochId>,
    /// Whether it had everything that is held here, when it was last heard.
    pub has_all: bool,
    /// What it was last asked for.
    pub asked: Option<Asked>,
}

/// The heads of a host at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// When they were heard.
    pub at_ms: Millis,
    /// The heads.
    pub heads: Vec<EpochId>,
}

/// A question to a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// When it was asked.
    pub at_ms: Millis,
    /// For what.
    pub what: String,
}

/// The document of `/v0/explain`: why a key reads as it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The space.
    pub space: SpaceId,
    /// The key, as a URI path.
    pub key: String,
    /// The node that answers.
    pub node: Did,
    /// The time there.
    pub now_ms: Millis,
    /// What the key holds, and every other operation on it, newest first.
    pub operations: Vec<Operation>,
    /// Whether there are more operations.
    pub has_more: bool,
    /// The epochs that are the heads of the space here.
    pub frontier: Vec<EpochId>,
    /// The space's hosts.
    pub hosts: Vec<Host>,
    /// Ancestors that waiting epochs lack.
    pub missing: Vec<EpochId>,
    /// Epochs that are not yet.
    pub waiting: Vec<WaitingEpoch>,
    /// Epochs that were refused lately, newest first.
    pub refused: Vec<RefusedEpoch>,
    /// Chains of which two epochs have the same number.
    pub forks: Vec<Fork>,
}

/// One operation on a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its version, as `x-kvspace-version` spells it.
    pub version: String,
    /// The epoch that holds it.
    pub epoch: EpochId,
    /// When it was taken in, by its host's clock.
    pub at_ms: Millis,
    /// The host that took it in.
    pub host: Did,
    /// Who signed it, if that can be read.
    pub signer: Option<Did>,
    /// Who vouches for the value: `client-signed` or `host-attested`.
    pub integrity: String,
    /// The value of a put; `None` is a delete.
    pub value: Option<ValueRef>,
    /// Where its bytes are.
    pub bytes: Bytes,
    /// What it is worth.
    pub standing: Standing,
}

/// A value by its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueRef {
    /// Its CID.
    pub cid: BlobHash,
    /// Its length.
    pub size_bytes: u64,
}

/// Where the bytes of a value are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Bytes {
    /// There are none: a delete.
    None,
    /// Here.
    Here,
    /// On their way.
    Pending {
        /// Whom they were asked of.
        asked: Vec<AskedHost>,
    },
    /// Freed, or never fetched because another operation won.
    NotHere,
}

/// A host that was asked for a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedHost {
    /// The host.
    pub host: Did,
    /// When it was asked.
    pub at_ms: Millis,
}

/// What an operation is worth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Standing {
    /// It is what the key holds.
    Wins,
    /// Another one has a greater version.
    Superseded,
    /// The same token did it before.
    Repeated,
    /// A revocation took its effect away.
    Void {
        /// The revoked delegation.
        delegation: String,
        /// The revocation.
        revocation: String,
        /// The rule, in words.
        rule: String,
    },
    /// Unsound for ever.
    Dead {
        /// Why, in words.
        reason: String,
    },
}

/// An epoch that is not yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingEpoch {
    /// The epoch.
    pub epoch: EpochId,
    /// The host that made it.
    pub host: Did,
    /// Ancestors that are not held here.
    pub lacks: Vec<EpochId>,
    /// Its clock, if that is ahead of the node's.
    pub clock_ms: Option<Millis>,
}

/// An epoch that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedEpoch {
    /// The epoch.
    pub epoch: EpochId,
    /// Who sent it.
    pub from: Option<Did>,
    /// When.
    pub at_ms: Millis,
    /// Why.
    pub reason: String,
}

/// A chain that is two: a host, and the number from which on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The host.
    pub host: Did,
    /// The number that two of its epochs have.
    pub n: u64,
}

/// The document of `/v0/revoke/preview`: the writes that a revocation would void.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// The writes.
    pub voided: Vec<Voided>,
    /// Whether there are more.
    pub has_more: bool,
}

/// A write that a revocation would void.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voided {
    /// The key, as a URI path.
    pub key: String,
    /// The write, as `x-kvspace-version` spells it.
    pub version: String,
    /// Whether it is what the key holds.
    pub wins: bool,
}
