//! The Rust client of kvspace and TinyCloud nodes: keys, sessions, and the values of a space.
//!
//! ```no_run
//! use kvspace_client::{Client, Condition, Grants, KeyKind, Meta, OwnerKey};
//!
//! # async fn example() -> Result<(), kvspace_client::Error> {
//! let node = Client::new("http://127.0.0.1:8420")?;
//! let owner = OwnerKey::generate(KeyKind::Ed25519)?;
//! let id = node.create_space(&owner, "default").await?;
//! let session = node.open_session(&owner, &id, Grants::everything(&id), 3_600_000).await?;
//! let space = node.space(session);
//! space.put("hello", "world", Meta::new().with_content_type("text/plain")?, Condition::Always).await?;
//! assert_eq!(space.get("hello").await?.bytes, "world");
//! # Ok(())
//! # }
//! ```
//!
//! A key given as text is percent-encoded where a URI path needs it, see [`KeyPath`]. Every wait has a bound
//! ([`ClientOptions`]); values of any size go through in pieces ([`Space::put_file`], [`Space::get_to`]); what is read is
//! checked against its hash. A space has several hosts: [`Space::at`] goes to another one, which is asked to wait until it
//! has what was written through this space ([`ReadYourWrites`]).
#![warn(missing_docs)]

mod body;
mod client;
pub mod clock;
mod error;
mod grants;
pub mod hosts;
mod http;
mod key_path;
mod keys;
mod meta;
mod random;
mod refusal;
mod seen;
mod session;
mod space;
mod token;
mod value;

pub use body::Progress;
pub use client::{Blocked, Client, Delegated, Info};
pub use error::{Error, Fault};
pub use grants::{Grants, KvAbility, KvAbilityError};
pub use http::{ClientOptions, ReadYourWrites};
pub use key_path::{AsKey, KeyPath, KeyPathError};
pub use keys::{Ed25519Key, EthereumKey, KeyKind, OwnerKey};
/// Ids and tokens, as the protocol has them.
pub use kvspace_protocol::{
    capability::Token,
    id::{Address, BlobHash, Did, EpochId, Millis, SpaceId},
};
pub use meta::{Meta, MetaError};
pub use refusal::{Refusal, RefusalKind};
pub use session::Session;
pub use space::{After, KeyPage, LIST_LIMIT_MAX, Space};
pub use value::{Condition, Head, Integrity, Value, Written};
