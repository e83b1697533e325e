//! `/metrics`: figures for Prometheus, in OpenMetrics text.

use std::{fmt, sync::Arc};

use kvspace_actors::node::{
    Status,
    replicas::{Metrics, PeerStatus},
};
use prometheus_client::{
    encoding::text::encode,
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::{Metric, Registry, Unit},
};
use warp::{
    Filter,
    filters::BoxedFilter,
    http::{HeaderValue, header},
    reply::Response,
};

use crate::http::{
    Context, answer,
    counters::Counters,
    error::{Call, HttpError},
    headers, with,
};

const CONTENT_TYPE: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

type Labels = Vec<(&'static str, String)>;

/// `GET /metrics`
pub(super) fn routes(context: &Arc<Context>) -> BoxedFilter<(Response,)> {
    warp::path!("metrics")
        .and(warp::get())
        .and(with(context))
        .map(|context: Arc<Context>| answer(metrics(&context)))
        .boxed()
}

fn metrics(context: &Context) -> Result<Response, HttpError> {
    let node = &context.node;
    let status = node.status(None, 0).map_err(|error| HttpError::node(Call::Invoke, &error))?;
    let figures =
        Figures { metrics: &node.metrics(), status: &status, peers: &node.peers(), requests: &context.counters };
    let text = figures.text().map_err(|_| HttpError::internal())?;
    let mut response = headers::text(text);
    response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    Ok(response)
}

/// All that is told.
struct Figures<'a> {
    metrics: &'a Metrics,
    status: &'a Status,
    peers: &'a [PeerStatus],
    requests: &'a Counters,
}

impl Figures<'_> {
    /// The figures of this moment. They are made anew for each request, so that nothing counts twice.
    fn text(&self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("kvspace");
        self.replication(&mut registry);
        self.storage(&mut registry);
        self.of_peers(&mut registry);
        let requests = self.requests.all();
        let requests = requests.map(|(route, hundreds, count)| {
            (vec![("route", route.to_owned()), ("status", format!("{hundreds}xx"))], count)
        });
        counters(&mut registry, "http_requests", "Requests answered to clients", requests);
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }

    fn replication(&self, registry: &mut Registry) {
        let metrics = self.metrics;
        let (fetched, fetched_bytes) = metrics.blobs_fetched;
        for (name, help, value) in [
            ("epochs_taken", "Epochs taken in from peers", metrics.epochs_taken),
            ("values_fetched", "Values fetched from peers", fetched),
            ("values_fetched_bytes", "Bytes of values fetched from peers", fetched_bytes),
            ("values_bad", "Parts of values that were not what they should be", metrics.blobs_bad),
        ] {
            registry.register(name, help, ConstCounter::new(value));
        }
        let refused = metrics.epochs_refused.iter().map(|(reason, count)| (vec![("reason", reason.clone())], *count));
        counters(registry, "epochs_refused", "Epochs of peers that were refused", refused);
        let answered = metrics.answered.iter();
        let answered =
            answered.map(|(kind, outcome, count)| (vec![("kind", kind.clone()), ("outcome", outcome.clone())], *count));
        counters(registry, "peer_requests", "Requests of peers that were answered", answered);
        gauge(registry, "values_wanted", "Values that are on their way", None, metrics.blobs_wanted);
        gauge(
            registry,
            "epochs_waiting",
            "Epochs that wait for an ancestor or the clock",
            None,
            metrics.epochs_waiting,
        );
    }

    fn storage(&self, registry: &mut Registry) {
        let (status, storage) = (self.status, &self.status.storage);
        gauge(registry, "spaces_active", "Spaces in memory", None, status.active as u64);
        gauge(registry, "delegations_parked", "Delegations that wait for their space", None, status.parked as u64);
        gauge(registry, "log", "Size of the log on the disk", Some(Unit::Bytes), storage.log_bytes);
        gauge(registry, "free", "Free room on the disk", Some(Unit::Bytes), storage.free_bytes);
        gauge(registry, "log_damaged", "Places in the log that are broken", None, storage.damaged);
    }

    fn of_peers(&self, registry: &mut Registry) {
        let connected = self.peers.iter().filter(|peer| peer.connected.is_some()).count() as u64;
        gauge(registry, "peers_connected", "Peers that are connected", None, connected);
        let each = |figure: fn(&PeerStatus) -> usize| {
            self.peers.iter().map(move |peer| (vec![("peer", peer.peer.to_string())], figure(peer) as u64))
        };
        let help = "Spaces in which a peer is known to differ";
        gauges(registry, "peer_spaces_behind", help, None, each(|peer| peer.behind));
        let help = "Epochs that wait to be pushed to a peer";
        gauges(registry, "peer_epochs_to_push", help, None, each(|peer| peer.to_push.0));
        let help = "Bytes that wait to be pushed to a peer";
        gauges(registry, "peer_to_push", help, Some(Unit::Bytes), each(|peer| peer.to_push.1));
        let refused = self.peers.iter().map(|peer| (vec![("peer", peer.peer.to_string())], peer.refused));
        counters(registry, "peer_epochs_refused", "Epochs of a peer that were refused", refused);
    }
}

fn counters(registry: &mut Registry, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
    let family = Family::<Labels, Counter>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).inc_by(value);
    }
    registry.register(name, help, family);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>, value: u64) {
    register(registry, name, help, unit, ConstGauge::new(whole(value)));
}

fn gauges(
    registry: &mut Registry,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    values: impl IntoIterator<Item = (Labels, u64)>,
) {
    let family = Family::<Labels, Gauge>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).set(whole(value));
    }
    register(registry, name, help, unit, family);
}

fn register(registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>, metric: impl Metric) {
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, metric),
        None => registry.register(name, help, metric),
    }
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use kvspace_actors::node::StorageStatus;

    use super::*;
    use crate::http::operator::peers::tests::some_peer;

    #[test]
    fn every_figure_has_its_line() {
        let metrics = Metrics {
            epochs_taken: 1,
            epochs_refused: vec![("signature".into(), 2)],
            answered: vec![("pull".into(), "refused".into(), 3)],
            blobs_fetched: (4, 5),
            blobs_wanted: 6,
            blobs_bad: 7,
            epochs_waiting: 8,
        };
        let storage = StorageStatus { log_bytes: 9, free_bytes: 10, damaged: 11, ..StorageStatus::default() };
        let status = Status { spaces: Vec::new(), has_more: false, active: 12, parked: 13, storage };
        let peers = [some_peer()];
        let figures = Figures { metrics: &metrics, status: &status, peers: &peers, requests: &Counters::default() };
        let text = figures.text().expect("a text");
        let peer = format!("{{peer=\"{}\"}}", peers[0].peer);
        for line in [
            "kvspace_epochs_taken_total 1",
            "kvspace_epochs_refused_total{reason=\"signature\"} 2",
            "kvspace_peer_requests_total{kind=\"pull\",outcome=\"refused\"} 3",
            "kvspace_values_fetched_total 4",
            "kvspace_values_fetched_bytes_total 5",
            "kvspace_values_wanted 6",
            "kvspace_values_bad_total 7",
            "kvspace_epochs_waiting 8",
            "kvspace_log_bytes 9",
            "kvspace_free_bytes 10",
            "kvspace_log_damaged 11",
            "kvspace_spaces_active 12",
            "kvspace_delegations_parked 13",
            "kvspace_peers_connected 1",
            &format!("kvspace_peer_spaces_behind{peer} 3"),
            &format!("kvspace_peer_epochs_to_push{peer} 4"),
            &format!("kvspace_peer_to_push_bytes{peer} 5"),
            &format!("kvspace_peer_epochs_refused_total{peer} 6"),
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
