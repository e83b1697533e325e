//! `/v0/explain`: why a key reads as it does here.

use kvspace_actors::{
    clock,
    node::{
        NodeError,
        replicas::{self, Bytes, ExplainedOperation, RefusedEpoch, Standing, WaitingEpoch},
    },
};
use kvspace_client::hosts::{self as wire, AskedHost, Explanation, Fork, ValueRef};
use kvspace_protocol::{
    authority::Proof,
    capability::{Ability, Capability},
    id::{Did, Key, Millis, SpaceId},
};
use warp::{http::HeaderMap, reply::Response};

use super::{document, hosts::host, parameter, refused, space};
use crate::http::{Context, auth, barrier::Barrier, error::HttpError};

/// Why a key reads as it does, for whoever may read it: the token is one that would read it by `/invoke`.
pub(super) async fn explain(context: &Context, headers: &HeaderMap, query: &str) -> Result<Response, HttpError> {
    let space = space(query)?;
    let now = clock::now();
    let token = auth::invocation(headers, now, context.options.lifetime_max_ms, &context.keys)?;
    if !context.node.hosts(&space).map_err(|error| refused(&error))? {
        return Err(refused(&NodeError::NotHosted));
    }
    let key = key(query, &token, &space)?;
    context.node.authorize(&space, &token, now).await.map_err(|error| refused(&error))?;
    if let Some(barrier) = Barrier::read(headers)? {
        barrier.pass(&context.node, &space).await?;
        // What came meanwhile may have taken the right away.
        context.node.authorize(&space, &token, now).await.map_err(|error| refused(&error))?;
    }
    let explained = context.node.explain(&space, &key).await.map_err(|error| refused(&error))?;
    Ok(document(&explanation(&space, &key, context.node.did(), now, explained)))
}

/// The key that is asked about; the token has to read it.
fn key(query: &str, token: &Proof, space: &SpaceId) -> Result<Key, HttpError> {
    let text = parameter(query, "key");
    let text = text.ok_or_else(|| HttpError::bad_request("key_missing", "name a key: &key=<key, as in its URI>"))?;
    let reads = |held: &&Capability| {
        held.resource.space() == Some(space)
            && matches!(held.ability.canonical(), Ability::GET | Ability::METADATA)
            && !held.resource.text().contains(['?', '#'])
    };
    let mut keys = token.capabilities().iter().filter(reads).filter_map(|held| held.resource.key());
    keys.find(|key| **key == *text).ok_or_else(|| HttpError::unauthorized(&format!("{space}/kv/{text}"), Ability::GET))
}

fn explanation(
    space: &SpaceId,
    key: &str,
    node: &Did,
    now_ms: Millis,
    explained: replicas::Explanation,
) -> Explanation {
    Explanation {
        space: space.clone(),
        key: key.to_owned(),
        node: node.clone(),
        now_ms,
        operations: explained.operations.into_iter().map(operation).collect(),
        has_more: explained.has_more,
        frontier: explained.frontier,
        hosts: explained.replicas.into_iter().map(host).collect(),
        missing: explained.missing,
        waiting: explained.waiting.into_iter().map(waiting).collect(),
        refused: explained.refused.into_iter().map(refused_epoch).collect(),
        forks: explained.forks.into_iter().map(|(host, n)| Fork { host, n }).collect(),
    }
}

fn operation(operation: ExplainedOperation) -> wire::Operation {
    let version = operation.version;
    wire::Operation {
        version: version.to_string(),
        epoch: version.epoch,
        at_ms: version.time(),
        host: operation.host,
        signer: operation.signer,
        integrity: operation.integrity.as_str().to_owned(),
        value: operation.value.map(|(cid, size_bytes)| ValueRef { cid, size_bytes }),
        bytes: bytes(operation.bytes),
        standing: standing(operation.standing),
    }
}

fn bytes(bytes: Bytes) -> wire::Bytes {
    match bytes {
        Bytes::None => wire::Bytes::None,
        Bytes::Here => wire::Bytes::Here,
        Bytes::Pending(asked) => {
            let asked = asked.into_iter().map(|(host, at_ms)| AskedHost { host, at_ms });
            wire::Bytes::Pending { asked: asked.collect() }
        }
        Bytes::NotHere => wire::Bytes::NotHere,
    }
}

fn standing(standing: Standing) -> wire::Standing {
    match standing {
        Standing::Wins => wire::Standing::Wins,
        Standing::Superseded => wire::Standing::Superseded,
        Standing::Repeated => wire::Standing::Repeated,
        Standing::Void { delegation, revocation, rule } => {
            wire::Standing::Void { delegation, revocation, rule: rule.to_owned() }
        }
        Standing::Dead(reason) => wire::Standing::Dead { reason },
    }
}

fn waiting(waiting: WaitingEpoch) -> wire::WaitingEpoch {
    wire::WaitingEpoch { epoch: waiting.epoch, host: waiting.host, lacks: waiting.lacks, clock_ms: waiting.ahead }
}

fn refused_epoch(refused: RefusedEpoch) -> wire::RefusedEpoch {
    wire::RefusedEpoch { epoch: refused.epoch, from: refused.from, at_ms: refused.at, reason: refused.reason }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ed25519_dalek::SigningKey;
    use kvspace_actors::node::replicas::Replica;
    use kvspace_protocol::{
        capability::build::{Claims, ucan},
        id::{Address, BlobHash, EpochId},
        kv::{Integrity, Version},
    };
    use serde_json::json;

    use super::*;

    fn space() -> SpaceId {
        "tinycloud:key:z6MkneMkZqwqRiU5mJzSG3kDwzt9P8C59N4NGTfBLfSGE7c7:notes".parse().expect("a space")
    }

    fn token(resource: &str, ability: &str) -> Proof {
        let capabilities = [(resource.to_owned(), vec![ability.to_owned()])].into();
        let token = ucan(&Claims { capabilities, ..Claims::until(Millis(1)) }, &SigningKey::from_bytes(&[1; 32]));
        Arc::new(token.expect("a token").verify().expect("signed"))
    }

    #[test]
    fn only_a_token_that_reads_the_key_asks_about_it() {
        let asks = |resource: &str, ability: &str| {
            let token = token(&format!("{}/{resource}", space()), ability);
            key("space=x&key=docs%2FZo%25C3%25AB", &token, &space())
        };
        for ability in ["tinycloud.kv/get", "tinycloud.kv/metadata"] {
            assert_eq!(asks("kv/docs/Zo%C3%AB", ability), Ok("docs/Zo%C3%AB".into()));
        }
        for (resource, ability) in [
            ("kv/docs/Zo%C3%AB", "tinycloud.kv/put"),
            ("kv/docs/Zo%C3%AB", "tinycloud.kv/list"),
            ("kv/docs", "tinycloud.kv/get"),
            ("kv/docs/Zo%C3%AB?x", "tinycloud.kv/get"),
            ("sql/docs/Zo%C3%AB", "tinycloud.kv/get"),
        ] {
            assert!(asks(resource, ability).is_err(), "{resource} {ability}");
        }
        let other = "tinycloud:key:z6MkneMkZqwqRiU5mJzSG3kDwzt9P8C59N4NGTfBLfSGE7c7:other/kv/a";
        assert!(key("key=a", &token(other, "tinycloud.kv/get"), &space()).is_err());
        assert!(key("space=x", &token(other, "tinycloud.kv/get"), &space()).is_err());
    }

    #[test]
    fn the_document_says_all_that_is_known() {
        let host = Did::from_ed25519(&[2; 32]);
        let (epoch, blob) = (EpochId::of(b"epoch"), BlobHash::of(b"value"));
        let pending = ExplainedOperation {
            version: Version::new(7 << 16, epoch, 0, 0),
            host: host.clone(),
            signer: Some(host.clone()),
            integrity: Integrity::ClientSigned,
            value: Some((blob, 5)),
            bytes: Bytes::Pending(vec![(host.clone(), Millis(9))]),
            standing: Standing::Wins,
        };
        let (delegation, revocation) = ("D".to_owned(), "R".to_owned());
        let void = ExplainedOperation {
            bytes: Bytes::NotHere,
            standing: Standing::Void { delegation, revocation, rule: "the cut" },
            ..pending.clone()
        };
        let replica = Replica {
            host: host.clone(),
            delegation: Some(Address::of(b"token")),
            until: None,
            is_revoked: false,
            is_here: false,
            is_connected: true,
            heard: Some((vec![epoch], Millis(8))),
            missing: vec![epoch],
            has_all: false,
            asked: Some((Millis(9), "heads".into())),
        };
        let explained = replicas::Explanation {
            operations: vec![pending, void],
            has_more: true,
            frontier: vec![epoch],
            replicas: vec![replica],
            missing: vec![epoch],
            waiting: vec![WaitingEpoch { epoch, host: host.clone(), lacks: vec![epoch], ahead: Some(Millis(10)) }],
            refused: vec![RefusedEpoch { epoch, from: None, at: Millis(11), reason: "forged".into() }],
            forks: vec![(host.clone(), 3)],
        };
        let explanation = explanation(&space(), "a", &host, Millis(12), explained);
        let document = serde_json::to_value(&explanation).expect("JSON");
        let first = &document["operations"][0];
        assert_eq!(first["bytes"], json!({ "state": "pending", "asked": [{ "host": host, "at_ms": 9 }] }));
        assert_eq!(
            (&first["at_ms"], &first["epoch"], &first["standing"]["state"]),
            (&json!(7), &json!(epoch), &json!("wins"))
        );
        let void = json!({ "state": "void", "delegation": "D", "revocation": "R", "rule": "the cut" });
        assert_eq!(document["operations"][1]["standing"], void);
        assert_eq!(document["hosts"][0]["heard"], json!({ "at_ms": 8, "heads": [epoch] }));
        assert_eq!(document["waiting"][0]["clock_ms"], 10);
        assert_eq!(document["refused"][0]["reason"], "forged");
        assert_eq!(document["forks"], json!([{ "host": host, "n": 3 }]));
        assert_eq!(serde_json::from_value::<Explanation>(document).expect("it reads back"), explanation);
    }
}
