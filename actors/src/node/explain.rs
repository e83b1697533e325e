//! Why a key reads as it does here: what the space's core, its index, the replicator and the fetcher know of it.

use std::sync::Arc;

use kvspace_protocol::{
    authority::Proof,
    capability::Role,
    dag::{Place, Vector},
    id::{Did, EpochId, HostKey, Key, Millis, SpaceId},
    kv::Effect,
    space::{DeadReason, Explained, Rule, View as _, Worth},
    sync::{Asked, Known},
};

use super::{
    Node, NodeError,
    replicas::{
        Bytes, ExplainedOperation, Explanation, OPERATIONS_MAX, RefusedEpoch, Replica, Standing, Voided, WaitingEpoch,
    },
};
use crate::{
    blobs::Blobs,
    clock,
    hosted::Hosted,
    index::{DeadWrite, IndexError},
    messages::{Call, Held, WaitingRoom},
};

impl Node {
    /// Why a key reads as it does here.
    ///
    /// # Errors
    /// [`NodeError::NotHosted`]; [`NodeError::Busy`] while another such question about the space is open.
    pub async fn explain(&self, space: &SpaceId, key: &str) -> Result<Explanation, NodeError> {
        let hosted = self.hosted(space).await?;
        let (node, key) = (self.clone(), Key::from(key));
        question(&hosted.clone(), async move { node.explain_now(&hosted, &key).await }).await
    }

    async fn explain_now(&self, hosted: &Arc<Hosted>, key: &Key) -> Result<Explanation, NodeError> {
        let newest = {
            let (hosted, key) = (hosted.clone(), key.clone());
            tokio::task::spawn_blocking(move || hosted.index.newest(&key, OPERATIONS_MAX + 1)).await
        };
        let newest = newest.map_err(|error| NodeError::Storage(error.to_string()))??;
        let explained = self.call(hosted, Held::default(), |answer| Call::Explain(newest, answer)).await?;
        let room = self.call(hosted, Held::default(), Call::Waiting).await?;
        let (dead, has_more) = (hosted.index.dead(key)?, explained.len() > OPERATIONS_MAX);
        let mut operations = self.operations(hosted, explained).await?;
        for dead in dead {
            operations.push(explain_dead(hosted, dead)?);
        }
        operations.sort_by_key(|operation| std::cmp::Reverse(operation.version));
        let WaitingRoom { waiting, missing, forks } = room;
        Ok(Explanation {
            operations,
            has_more,
            frontier: hosted.frontier(),
            replicas: self.replicas_of(hosted)?,
            missing,
            waiting: waiting
                .into_iter()
                .map(|epoch| WaitingEpoch {
                    epoch: epoch.epoch,
                    host: epoch.host.did(),
                    lacks: epoch.lacks,
                    ahead: epoch.ahead,
                })
                .collect(),
            refused: hosted
                .refused()
                .into_iter()
                .map(|refused| RefusedEpoch {
                    epoch: refused.epoch,
                    from: refused.from.map(|from| from.did()),
                    at: refused.at,
                    reason: refused.reason,
                })
                .collect(),
            forks: forks.into_iter().map(|fork| (fork.host.did(), fork.n)).collect(),
        })
    }

    /// The hosts of a space, this one among them.
    ///
    /// # Errors
    /// [`NodeError::NotHosted`].
    pub async fn replicas(&self, space: &SpaceId) -> Result<Vec<Replica>, NodeError> {
        let hosted = self.hosted(space).await?;
        self.replicas_of(&hosted)
    }

    /// The writes that a revocation would void, at most `max`, and whether there are more. Nothing is taken in; time and
    /// signature of the token are the caller's part.
    ///
    /// # Errors
    /// [`NodeError`] as of taking it in.
    pub async fn preview(&self, token: Proof, now: Millis, max: usize) -> Result<(Vec<Voided>, bool), NodeError> {
        let Role::Revocation { target } = token.role() else {
            return Err(kvspace_protocol::authority::Denied::Revoker.into());
        };
        let target = self.revoked_by(&token, &target, now).await?;
        let (mut voided, mut has_more) = (Vec::new(), false);
        let (hosted, _) = self.named(&target).await?;
        let mut refusal = None;
        let mut judged = false;
        for hosted in hosted {
            let borrowed =
                match self.judged_twice(&hosted, &token, now, async || self.hold(&hosted, &token).await).await {
                    Ok(borrowed) => borrowed,
                    Err(error) => {
                        refusal = Some(error);
                        continue;
                    }
                };
            judged = true;
            let (token, max) = (token.clone(), max - voided.len());
            let (node, asked) = (self.clone(), hosted.clone());
            let preview = question(&hosted, async move {
                let call = |answer| Call::Preview { token, borrowed, max, answer };
                node.call(&asked, Held::default(), call).await
            });
            let preview = preview.await?;
            has_more |= preview.has_more;
            voided.extend(preview.voided.into_iter().map(|write| Voided {
                key: write.key,
                version: write.version,
                wins: write.wins,
            }));
        }
        match refusal {
            Some(refusal) if !judged => Err(refusal),
            Some(_) | None => Ok((voided, has_more)),
        }
    }

    async fn operations(
        &self,
        hosted: &Arc<Hosted>,
        explained: Vec<Explained>,
    ) -> Result<Vec<ExplainedOperation>, NodeError> {
        let (hosted, blobs) = (hosted.clone(), self.blobs().clone());
        let read = move || -> Result<Vec<_>, IndexError> {
            explained.iter().take(OPERATIONS_MAX).map(|explained| explain(&hosted, &blobs, explained)).collect()
        };
        let read = tokio::task::spawn_blocking(read).await;
        let mut operations = read.map_err(|error| NodeError::Storage(error.to_string()))??;
        if let Some(replication) = self.inner.replication.get() {
            for operation in &mut operations {
                if let (Bytes::Pending(asked), Some((hash, _))) = (&mut operation.bytes, operation.value) {
                    let of = replication.fetcher().asked(&hash);
                    *asked = of.into_iter().map(|(peer, at)| (peer.did(), at)).collect();
                }
            }
        }
        Ok(operations)
    }

    fn replicas_of(&self, hosted: &Hosted) -> Result<Vec<Replica>, NodeError> {
        let now = clock::now();
        let (named, live) = {
            let access = hosted.access();
            (access.all_hosts(), access.hosts(now))
        };
        let mut replicas = Vec::new();
        for named in &named {
            let mut replica = self.replica(hosted, named.host)?;
            (replica.delegation, replica.until) = (Some(named.delegation), named.until);
            replica.is_revoked = named.is_revoked;
            replicas.push(replica);
        }
        // The owner's own key is a host that nobody names, if it is a node's.
        let is_node = |host: &&HostKey| {
            named.iter().all(|named| named.host != **host)
                && (**host == self.inner.host || hosted.dag().branches().iter().any(|branch| branch.host == **host))
        };
        for host in live.iter().filter(is_node) {
            replicas.push(self.replica(hosted, *host)?);
        }
        Ok(replicas)
    }

    /// What is known of a host, without its delegation.
    fn replica(&self, hosted: &Hosted, host: HostKey) -> Result<Replica, NodeError> {
        let replication = self.inner.replication.get();
        let known = replication.and_then(|r| r.question(|replicator| replicator.known(&hosted.id, &host).cloned()));
        let (mut missing, mut has_all) = (Vec::new(), false);
        if let Some(Known { heads, .. }) = &known {
            (missing, has_all) = compare(hosted, heads)?;
        }
        Ok(Replica {
            host: host.did(),
            delegation: None,
            until: None,
            is_revoked: false,
            is_here: host == self.inner.host,
            is_connected: replication.is_some_and(|replication| replication.network().is_connected(&host)),
            asked: known.as_ref().and_then(|known| known.asked.as_ref()).map(|(at, ask)| (*at, words(*ask))),
            heard: known.map(|known| (known.heads, known.at)),
            missing,
            has_all,
        })
    }
}

/// Works on a long question about a space, one at a time. It is worked on to its end even if who asked goes away.
async fn question<T: Send + 'static>(
    hosted: &Hosted,
    work: impl Future<Output = Result<T, NodeError>> + Send + 'static,
) -> Result<T, NodeError> {
    let place = hosted.questions.clone().try_acquire_owned().map_err(|_| NodeError::Busy)?;
    let work = tokio::spawn(async move {
        let worked = work.await;
        drop(place);
        worked
    });
    work.await.unwrap_or_else(|error| Err(NodeError::Storage(error.to_string())))
}

/// Which of a host's heads are not held here, and whether the host has all that is.
fn compare(hosted: &Hosted, heads: &[EpochId]) -> Result<(Vec<EpochId>, bool), IndexError> {
    let (dag, mut reached, mut missing) = (hosted.dag(), Vector::default(), Vec::new());
    for head in heads {
        match hosted.index.epoch(head).map_err(|error| IndexError::new(error.to_string()))? {
            Some(at) => reached.join(&dag.reach(at.place)),
            None => missing.push(*head),
        }
    }
    let has_all = dag.heads().values().all(|head| reached.contains(head.place));
    Ok((missing, has_all))
}

fn words(asked: Asked) -> String {
    match asked {
        Asked::ByHeads => "what it has beyond our heads".into(),
        Asked::ByBranches => "what it has beyond our branches".into(),
        Asked::Epochs(number) => format!("{number} epochs by name"),
    }
}

fn explain(hosted: &Hosted, blobs: &Blobs, explained: &Explained) -> Result<ExplainedOperation, IndexError> {
    let operation = &explained.operation;
    let version = operation.version;
    let value = match &operation.effect {
        Effect::Put(value) => Some((value.blob, value.size)),
        Effect::Delete => None,
    };
    let bytes = match value {
        None => Bytes::None,
        Some((hash, _)) => {
            let stored = hosted.index.operation(&operation.key, &operation.identity, &version)?;
            if stored.is_some_and(|stored| stored.at.is_some()) || blobs.exists(&hash) {
                Bytes::Here
            } else if explained.worth == Worth::Wins {
                Bytes::Pending(Vec::new())
            } else {
                Bytes::NotHere
            }
        }
    };
    let standing = match explained.worth {
        Worth::Wins => Standing::Wins,
        Worth::Superseded => Standing::Superseded,
        Worth::Repeated => Standing::Repeated,
        Worth::Void(void) => Standing::Void {
            delegation: void.delegation.to_string(),
            revocation: void.revocation.to_string(),
            rule: rule(void.rule),
        },
    };
    Ok(ExplainedOperation {
        version,
        host: host_of(hosted, operation.place)?,
        signer: hosted.index.signer(operation.place, &version),
        integrity: operation.integrity,
        value,
        bytes,
        standing,
    })
}

fn explain_dead(hosted: &Hosted, dead: DeadWrite) -> Result<ExplainedOperation, IndexError> {
    let DeadWrite { version, place, reason } = dead;
    Ok(ExplainedOperation {
        version,
        host: host_of(hosted, place)?,
        signer: hosted.index.signer(place, &version),
        integrity: kvspace_protocol::kv::Integrity::HostAttested,
        value: None,
        bytes: Bytes::None,
        standing: Standing::Dead(why_dead(reason).into()),
    })
}

fn host_of(hosted: &Hosted, place: Place) -> Result<Did, IndexError> {
    let chain = hosted.dag().chain(place);
    chain.map(|(host, _)| host.did()).ok_or_else(|| IndexError::new("the index names an epoch of no chain"))
}

fn rule(rule: Rule) -> &'static str {
    match rule {
        Rule::Cut => "rule 6: it lies beyond what the revocation had seen",
        Rule::Widened => {
            "rule 7: it lies beyond what the revocation had seen, and what its signer's own revocation had seen"
        }
    }
}

fn why_dead(reason: DeadReason) -> &'static str {
    match reason {
        DeadReason::Signature => "the token's signature does not hold",
        DeadReason::Authority => "rule 5: a proof of the token is missing or does not cover it",
        DeadReason::Time => "rule 6: the token was not in force when its host took it in",
        DeadReason::After => "rule 7: its host had not seen what the token names (kvspace/after)",
        DeadReason::Content => "rule 7: its host stored another value than the token signs (kvspace/content)",
    }
}
