//! `/invoke`: a token that says what to do, and the body it needs.
//!
//! Authority is judged before the body is read, so an unauthorised request lands no bytes.

use std::collections::BTreeSet;

use kvspace_actors::{
    clock,
    node::{Authorized, NodeError},
};
use kvspace_protocol::{
    authority::Proof,
    capability::{Ability, Capability, Role},
    id::{Key, Millis, SpaceId},
    limits::KEY_BYTES_MAX,
};
use warp::{http::HeaderMap, reply::Response};

use super::{list, read, write};
use crate::http::{
    Context, auth,
    barrier::Barrier,
    body::RequestBody,
    empty,
    error::{Call, HttpError},
    headers,
};

/// What a capability does to a key or path here.
#[derive(Debug, PartialEq, Eq)]
enum Effect {
    Get(Key),
    Metadata(Key),
    List(Key),
    Put,
    Delete,
}

/// Everything an ability needs to know.
pub(super) struct Invocation<'a> {
    pub(super) context: &'a Context,
    pub(super) headers: &'a HeaderMap,
    pub(super) token: &'a Proof,
    pub(super) space: &'a SpaceId,
    pub(super) authorized: Authorized,
}

/// Does what a token says.
pub(super) async fn invoke(context: &Context, headers: &HeaderMap, body: RequestBody) -> Result<Response, HttpError> {
    let now = clock::now();
    let token = auth::invocation(headers, now, context.options.lifetime_max_ms, &context.keys)?;
    let Some((wanted, more)) = token.capabilities().split_first() else { return Ok(empty()) };
    let authorized = authorize(context, &token, now).await?;
    if !more.is_empty() {
        return Err(HttpError::batch());
    }
    let (Some(authorized), Some(space), Some(effect)) = (authorized, wanted.resource.space(), effect(wanted)?) else {
        return Ok(empty());
    };
    headers::no_expected_version(headers)?;
    let authorized = match Barrier::read(headers)? {
        None => authorized,
        Some(barrier) => {
            barrier.pass(&context.node, space).await?;
            // What came meanwhile may have taken the right away.
            authorize(context, &token, now).await?.ok_or_else(HttpError::elsewhere)?
        }
    };
    let invocation = Invocation { context, headers, token: &token, space, authorized };
    match effect {
        Effect::Get(key) => read::get(invocation, &key).await,
        Effect::Metadata(key) => read::metadata(&invocation, &key).await,
        Effect::List(path) => list::list(invocation, &path).await,
        Effect::Put => {
            addressed_to_itself(&token, wanted)?;
            write::put(invocation, body).await
        }
        Effect::Delete => {
            addressed_to_itself(&token, wanted)?;
            write::delete(invocation).await
        }
    }
}

/// Judges the token in every space it names; `None` when it names none and needs no proof.
async fn authorize(context: &Context, token: &Proof, now: Millis) -> Result<Option<Authorized>, HttpError> {
    let spaces: BTreeSet<_> = token.capabilities().iter().filter_map(|held| held.resource.space()).collect();
    let refused = |error: NodeError| HttpError::node(Call::Invoke, &error);
    for space in &spaces {
        if !context.node.hosts(space).map_err(refused)? {
            return Err(refused(NodeError::NotHosted));
        }
    }
    let mut authorized = None;
    for space in &spaces {
        let judged = context.node.authorize(space, token, now).await.map_err(refused)?;
        authorized.get_or_insert(judged);
    }
    if spaces.is_empty() {
        let foreign = |held: &&Capability| held.resource.root().as_ref() != Some(token.issuer());
        if let Some(held) = token.capabilities().iter().find(foreign) {
            return Err(HttpError::unauthorized(held.resource.text(), held.ability.as_str()));
        }
    }
    Ok(authorized)
}

/// What a capability does; `None` when that is nothing, as for other services and for `kv` without a path.
fn effect(wanted: &Capability) -> Result<Option<Effect>, HttpError> {
    let Some(key) = wanted.resource.key() else { return Ok(None) };
    let effect = match wanted.ability.canonical() {
        Ability::LIST => return Ok(Some(Effect::List(key))),
        Ability::GET => Effect::Get(key.clone()),
        Ability::METADATA => Effect::Metadata(key.clone()),
        Ability::PUT => Effect::Put,
        Ability::DEL => Effect::Delete,
        _ => return Ok(None),
    };
    if wanted.resource.text().contains(['?', '#']) {
        let words = "a key holds no ? and no #: percent-encode it (%3F, %23)".to_owned();
        return Err(HttpError::bad_request("key_not_encoded", words));
    }
    if key.len() > KEY_BYTES_MAX {
        let words = format!("the key has {} bytes, more than {KEY_BYTES_MAX}", key.len());
        return Err(HttpError::bad_request("key_too_long", words));
    }
    Ok(Some(effect))
}

/// Refuses a write by a token that was signed as something else. A log keeps the token for ever, and what is addressed
/// to another is a delegation there.
fn addressed_to_itself(token: &Proof, wanted: &Capability) -> Result<(), HttpError> {
    match token.role() {
        Role::Invocation => Ok(()),
        Role::Delegation | Role::Revocation { .. } => {
            Err(HttpError::audience(wanted.resource.text(), wanted.ability.as_str()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ed25519_dalek::SigningKey;
    use kvspace_protocol::{
        capability::build::{Claims, ucan},
        id::Did,
    };

    use super::*;

    const SPACE: &str = "tinycloud:key:z6Mk:default";

    fn token(resource: &str, ability: &str, audience: Option<Did>) -> Proof {
        let capabilities = [(resource.to_owned(), vec![ability.to_owned()])].into();
        let claims = Claims { capabilities, audience, ..Claims::until(Millis(1)) };
        let token = ucan(&claims, &SigningKey::from_bytes(&[1; 32])).expect("a token");
        Arc::new(token.verify().expect("signed"))
    }

    fn of(resource: &str, ability: &str) -> Result<Option<Effect>, HttpError> {
        effect(&token(resource, ability, None).capabilities()[0])
    }

    #[test]
    fn an_ability_has_its_effect_on_a_path_of_kv_and_nowhere_else() {
        let key = || "a/b".into();
        for (ability, expected) in [
            ("tinycloud.kv/get", Effect::Get(key())),
            ("tinycloud.kv/metadata", Effect::Metadata(key())),
            ("tinycloud.kv/list", Effect::List(key())),
            ("tinycloud.kv/put", Effect::Put),
            ("tinycloud.kv/del", Effect::Delete),
            ("tinycloud.kv/delete", Effect::Delete),
        ] {
            assert_eq!(of(&format!("{SPACE}/kv/a/b"), ability), Ok(Some(expected)));
            assert_eq!(of(&format!("{SPACE}/kv"), ability), Ok(None));
            assert_eq!(of(&format!("{SPACE}/sql/a"), ability), Ok(None));
        }
        assert_eq!(of(&format!("{SPACE}/space"), "tinycloud.space/info"), Ok(None));
        assert_eq!(of(&format!("{SPACE}/kv/a"), "tinycloud.kv/*"), Ok(None));
        assert_eq!(of(&format!("{SPACE}/kv/"), "tinycloud.kv/list"), Ok(Some(Effect::List("".into()))));
    }

    #[test]
    fn what_follows_a_raw_question_mark_is_not_taken_off_a_key() {
        for ability in ["tinycloud.kv/get", "tinycloud.kv/put", "tinycloud.kv/del", "tinycloud.kv/metadata"] {
            assert!(of(&format!("{SPACE}/kv/what?"), ability).is_err());
            assert!(of(&format!("{SPACE}/kv/what#x"), ability).is_err());
            assert!(of(&format!("{SPACE}/kv/what%3F"), ability).is_ok());
        }
    }

    #[test]
    fn a_key_beyond_the_size_is_refused() {
        let longest = "a".repeat(KEY_BYTES_MAX);
        for ability in ["tinycloud.kv/get", "tinycloud.kv/put", "tinycloud.kv/del", "tinycloud.kv/metadata"] {
            assert!(of(&format!("{SPACE}/kv/{longest}"), ability).is_ok());
            assert!(of(&format!("{SPACE}/kv/{longest}b"), ability).is_err());
        }
    }

    #[test]
    fn only_a_token_addressed_to_its_issuer_writes() {
        let resource = format!("{SPACE}/kv/a");
        let own = token(&resource, "tinycloud.kv/put", None);
        assert_eq!(addressed_to_itself(&own, &own.capabilities()[0]), Ok(()));
        let others = token(&resource, "tinycloud.kv/put", Some(Did::from_ed25519(&[2; 32])));
        let expected = HttpError::audience(&resource, "tinycloud.kv/put");
        assert_eq!(addressed_to_itself(&others, &others.capabilities()[0]), Err(expected));
    }
}
