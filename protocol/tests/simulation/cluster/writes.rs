//! Writes beside those that faults go along with.

use std::collections::BTreeSet;

use kvspace_protocol::{id::EpochId, space::View};

use super::{BOUND_MS, Cluster, NODES, SPACES};
use crate::world;

impl Cluster {
    /// Two hosts go on writing until all have what was there when the faults ended.
    pub(super) fn write_steadily(&mut self) {
        let held: BTreeSet<EpochId> = self.hosts_of_first().flat_map(|host| host.log.iter().map(world::id)).collect();
        let has_all = |cluster: &Self| {
            let is_held = |host: &world::Host, id| host.view.epoch(id).expect("the view reads").is_some();
            cluster.hosts_of_first().all(|host| held.iter().all(|id| is_held(host, id)))
        };
        let end_ms = self.now_ms + BOUND_MS;
        while !has_all(self) {
            assert!(self.now_ms < end_ms, "what was there is not everywhere while others write");
            for node in 0..2 {
                self.write(0, node);
            }
            self.run_until(self.now_ms + 1_000, |_| false);
        }
    }

    fn hosts_of_first(&self) -> impl Iterator<Item = &world::Host> {
        let nodes = self.nodes.iter().filter(|node| !self.removed.contains(&node.key));
        nodes.filter_map(|node| node.spaces.get(&self.owners[0].space)).map(|hosted| &hosted.host)
    }

    /// A put at each host of each space, so that each has something that only it has.
    pub(crate) fn write_everywhere(&mut self) {
        for number in 0..SPACES {
            for node in 0..NODES - number {
                self.write(number, node);
            }
        }
    }

    /// A put of a client that nobody takes anything away from.
    fn write(&mut self, number: usize, node: usize) {
        let space = self.owners[number].space.clone();
        let session = self.owners[number].session(u8::try_from(200 + node).expect("few"));
        let bytes = self.now_ms.to_be_bytes();
        self.touch(node, |node, _| {
            let host = &mut node.spaces.get_mut(&space).expect("it is hosted").host;
            let write = session.put_write(host, "last", &bytes);
            let borrowed = vec![session.delegation.clone()];
            host.send(kvspace_protocol::space::Write { borrowed, ..write });
        });
    }
}
