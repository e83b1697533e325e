//! Hosts that know only one in the middle.

use super::bytes;
use crate::harness::{
    Cluster,
    cluster::{epoch, is_connected},
    process::eventually,
};

#[test]
fn what_is_written_at_a_point_of_a_star_reaches_the_others() {
    let points = [vec![], vec![0], vec![0], vec![0]];
    let cluster = Cluster::linked(&points, |_, setup| setup.option("network.compare_interval_s", 86_400));
    assert!(!is_connected(&cluster.hosts[1], &cluster.hosts[2].did()), "they do not know each other");
    for from in 1..4 {
        let key = format!("from/{from}");
        cluster.session.put(&cluster.hosts[from], &key, "pushed on").expect(200);
        for host in &cluster.hosts {
            eventually("it is passed on", || cluster.session.get(host, &key).status == 200);
        }
        let written = cluster.session.put(&cluster.hosts[from], "large", bytes(300_000, from as u64)).expect(200);
        for to in 0..4 {
            let answer = cluster.get_after(to, "large", &epoch(&written)).expect(200);
            assert!(answer.body == bytes(300_000, from as u64), "at {to}");
        }
    }
    cluster.agree();
}
