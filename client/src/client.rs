//! A node, and what one asks it outside of a space.

use http::{HeaderValue, Method, header};
use kvspace_protocol::{
    capability::Token,
    id::{Did, Millis, SpaceId},
};
use serde::Deserialize;

use crate::{
    Error, Grants, OwnerKey, Session, Space, clock,
    hosts::Preview,
    http::{Call, ClientOptions, Transport},
    token,
};

/// The largest answer of these kinds: a few ids.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// Connections to one node. Clones share them.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) transport: Transport,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// The protocol it speaks; 1.
    pub protocol: u64,
    /// Its version.
    pub version: String,
    /// What it can do.
    #[serde(default)]
    pub features: Vec<String>,
    /// Its DID.
    #[serde(default)]
    pub node_id: Option<String>,
}

/// What a node did with a delegation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Delegated {
    /// The delegation's address.
    pub cid: String,
    /// The spaces that took it in now.
    #[serde(default)]
    pub activated: Vec<String>,
    /// The spaces it names that the node does not host.
    #[serde(default)]
    pub skipped: Vec<String>,
}

/// Whether a peer is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    /// It is.
    Yes,
    /// It is not.
    No,
}

impl Client {
    /// A client of the node at this address: `http://HOST:PORT` or `https://HOST`, with a path if the node has one.
    ///
    /// # Errors
    /// [`Error::NodeUrl`] when it is no such address.
    pub fn new(node: &str) -> Result<Self, Error> {
        Self::with_options(node, ClientOptions::default())
    }

    /// The same with other waits and bounds.
    ///
    /// # Errors
    /// [`Error::NodeUrl`] when it is no such address.
    pub fn with_options(node: &str, options: ClientOptions) -> Result<Self, Error> {
        Ok(Self { transport: Transport::new(node, options)? })
    }

    /// The node's address.
    #[must_use]
    pub fn node(&self) -> &str {
        self.transport.base()
    }

    /// What the node says of itself (`GET /info`).
    ///
    /// # Errors
    /// [`Error`] when it does not answer like a node.
    pub async fn info(&self) -> Result<Info, Error> {
        self.json(Call::new(Method::GET, "info")).await
    }

    /// The state of the node, as its operator's interface tells it (`GET /status`). The client has to be one of that
    /// interface's address.
    ///
    /// # Errors
    /// [`Error`] when it does not answer like one.
    pub async fn status(&self) -> Result<serde_json::Value, Error> {
        self.json(Call::new(Method::GET, "status")).await
    }

    /// The peers of the node, as its operator's interface tells of them (`GET /peers`).
    ///
    /// # Errors
    /// [`Error`] when it does not answer like one.
    pub async fn peers(&self) -> Result<serde_json::Value, Error> {
        self.json(Call::new(Method::GET, "peers")).await
    }

    /// Cuts a peer off, or lets it come back, by the operator's interface (`POST /peers/<did>/block`, `…/unblock`).
    ///
    /// # Errors
    /// [`Error`] when it does not do so.
    pub async fn set_blocked(&self, peer: &Did, blocked: Blocked) -> Result<(), Error> {
        let verb = match blocked {
            Blocked::Yes => "block",
            Blocked::No => "unblock",
        };
        let call = Call::new(Method::POST, format!("peers/{}/{verb}", escaped(peer.as_str())));
        self.json::<serde_json::Value>(call).await.map(drop)
    }

    /// The DID under which the node would host this space (`GET /peer/generate/<space>`).
    ///
    /// # Errors
    /// [`Error`] when it does not say.
    pub async fn host_did(&self, space: &SpaceId) -> Result<Did, Error> {
        let call = Call::new(Method::GET, format!("peer/generate/{}", escaped(space.as_str())));
        let (_, body) = self.transport.send_and_read(call, ANSWER_BYTES_MAX).await?;
        let text = String::from_utf8_lossy(&body);
        text.trim().parse().map_err(|_| Error::Answer("the host's name is not a DID".into()))
    }

    /// Makes the node a host of the owner's space `name`: the owner signs so, and the node takes it in. Where it hosts
    /// the space already, nothing changes.
    ///
    /// # Errors
    /// [`Error::NotCreated`] when the node leaves the space out; else [`Error`] as of any call.
    pub async fn create_space(&self, owner: &OwnerKey, name: &str) -> Result<SpaceId, Error> {
        let space = SpaceId::new(&owner.did(), name)?;
        let host = self.host_did(&space).await?;
        let delegated = self.delegate(&token::host(owner, &space, &host, clock::now())?).await?;
        if delegated.skipped.iter().any(|skipped| skipped == space.as_str()) {
            return Err(Error::NotCreated(space));
        }
        Ok(space)
    }

    /// Signs the owner's word that `host` hosts a space, which does not end but by a revocation. It counts once a node
    /// has it: [`Client::delegate`].
    ///
    /// # Errors
    /// [`Error::Token`] when it makes no token, [`Error::Randomness`].
    pub fn sign_host(owner: &OwnerKey, space: &SpaceId, host: &Did) -> Result<Token, Error> {
        token::host(owner, space, host, clock::now())
    }

    /// Opens a session of the owner in a space, good for `lifetime_ms`, and makes it known to the node.
    ///
    /// # Errors
    /// [`Error::NotCreated`] when the node does not host the space; else [`Error`] as of any call.
    pub async fn open_session(
        &self,
        owner: &OwnerKey,
        space: &SpaceId,
        grants: Grants,
        lifetime_ms: i64,
    ) -> Result<Session, Error> {
        let now = clock::now();
        let session = Session::sign(owner, space, grants, now, now.plus(lifetime_ms))?;
        self.announce(&session).await?;
        Ok(session)
    }

    /// Opens a session beneath a delegation that was given to `own`, and makes both known to the node.
    ///
    /// # Errors
    /// [`Error::Session`] when the delegation is for another key; else [`Error`] as of any call.
    pub async fn open_session_beneath(
        &self,
        own: &OwnerKey,
        received: &Token,
        lifetime_ms: i64,
    ) -> Result<Session, Error> {
        let now = clock::now();
        let session = Session::beneath(own, received, now, now.plus(lifetime_ms))?;
        self.delegate(received).await?;
        self.announce(&session).await?;
        Ok(session)
    }

    /// Makes a session's delegation known to the node.
    ///
    /// # Errors
    /// [`Error::NotCreated`] when the node does not host the space; else [`Error`] as of any call.
    pub async fn announce(&self, session: &Session) -> Result<(), Error> {
        let delegated = self.delegate(session.delegation()).await?;
        if delegated.skipped.iter().any(|skipped| skipped == session.space().as_str()) {
            return Err(Error::NotCreated(session.space().clone()));
        }
        Ok(())
    }

    /// Gives a delegation to the node (`POST /delegate`). A second time changes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is not good; else [`Error`] as of any call.
    pub async fn delegate(&self, token: &Token) -> Result<Delegated, Error> {
        self.json(Call::new(Method::POST, "delegate").authorized(&token.to_header())?).await
    }

    /// What a revocation would do (`POST /v0/revoke/preview`).
    pub(crate) async fn preview(&self, token: &Token) -> Result<Preview, Error> {
        self.json(Call::new(Method::POST, "v0/revoke/preview").authorized(&token.to_header())?).await
    }

    /// Gives a revocation to the node (`POST /revoke`).
    pub(crate) async fn revoke(&self, token: &Token) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Revoked {
            revoked: bool,
        }
        let answer: Revoked = self.json(Call::new(Method::POST, "revoke").authorized(&token.to_header())?).await?;
        if answer.revoked { Ok(()) } else { Err(Error::Answer("the node did not revoke".into())) }
    }

    /// The space of a session.
    #[must_use]
    pub fn space(&self, session: Session) -> Space {
        Space::new(self.clone(), session)
    }

    pub(crate) async fn json<T: serde::de::DeserializeOwned>(&self, mut call: Call) -> Result<T, Error> {
        call.headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let (_, body) = self.transport.send_and_read(call, ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(&body).map_err(|error| Error::Answer(error.to_string()))
    }
}

/// Whether a time has come, with a margin for the way to the node.
pub(crate) fn ends_before(expiry: Option<Millis>, at: Millis) -> bool {
    expiry.is_some_and(|expiry| expiry <= at)
}

/// Percent-encoded for one segment of a path or one value of a query.
pub(crate) fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
