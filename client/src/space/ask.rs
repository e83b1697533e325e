//! Asking about a space: its frontier, its hosts, and why a key reads as it does.

use http::Method;
use kvspace_protocol::{capability::Resource, id::EpochId};
use serde::Deserialize;

use super::Space;
use crate::{
    AsKey, Error, KvAbility,
    client::escaped,
    clock,
    grants::SPACE_INFO,
    hosts::{Explanation, Hosts},
    http::Call,
};

impl Space {
    /// The heads of the space's log at this node (`GET /v0/frontier`). Whoever may do anything in the space may ask.
    ///
    /// # Errors
    /// [`Error`] as of any call.
    pub async fn frontier(&self) -> Result<Vec<EpochId>, Error> {
        #[derive(Deserialize)]
        struct Frontier {
            frontier: Vec<EpochId>,
        }
        let mut call = self.asking("frontier")?;
        self.await_seen(&mut call);
        let answer: Frontier = self.client.json(call).await?;
        Ok(answer.frontier)
    }

    /// The hosts of the space, as this node knows them (`GET /v0/hosts`). Whoever may do anything in the space may ask.
    ///
    /// # Errors
    /// [`Error`] as of any call.
    pub async fn hosts(&self) -> Result<Hosts, Error> {
        self.client.json(self.asking("hosts")?).await
    }

    /// Why a key reads at this node as it does (`GET /v0/explain`). Whoever may read the key may ask.
    ///
    /// # Errors
    /// [`Error`] as of any call.
    pub async fn explain(&self, key: impl AsKey) -> Result<Explanation, Error> {
        let key = key.key_path()?;
        let resource = self.kv(&key);
        let reads = [KvAbility::Get, KvAbility::Head];
        let held = reads.into_iter().find(|ability| self.session.allows(&resource, ability.as_str()));
        let path = format!("v0/explain?space={}&key={}", escaped(self.id().as_str()), escaped(key.as_str()));
        self.client.json(self.get_with(path, &resource, held.unwrap_or(KvAbility::Get).as_str())?).await
    }

    fn asking(&self, what: &str) -> Result<Call, Error> {
        let (resource, ability) = self.any_right();
        self.get_with(format!("v0/{what}?space={}", escaped(self.id().as_str())), &resource, ability)
    }

    fn get_with(&self, path: String, resource: &Resource, ability: &'static str) -> Result<Call, Error> {
        let token = self.sign(resource, ability, None, clock::now())?;
        Call::new(Method::GET, path).authorized(&token.to_header())
    }

    /// Something that this session may do: to ask for the space's state, or else what it may do with values.
    fn any_right(&self) -> (Resource, &'static str) {
        let info = Resource::in_space(self.id(), "space", None);
        let held = self.session.delegation().capabilities().iter();
        let inside =
            held.filter(|held| !self.session.allows(&info, SPACE_INFO) && held.resource.space() == Some(self.id()));
        let mut values = inside.filter_map(|held| {
            let ability = KvAbility::ALL.into_iter().find(|ability| ability.as_str() == held.ability.canonical())?;
            Some((held.resource.clone(), ability.as_str()))
        });
        values.next().unwrap_or((info, SPACE_INFO))
    }
}
