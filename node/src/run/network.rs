//! How the node speaks to other nodes, made of its configuration.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use kvspace_actors::node::NetworkOptions;
use kvspace_config::{Discovery, Network};

/// What the network is to do; `None` when it is switched off.
pub(super) fn options(network: &Network, discovery: &Discovery) -> Option<NetworkOptions> {
    if network.listen.is_empty() {
        return None;
    }
    Some(NetworkOptions {
        listen: addresses(network),
        peers: network.peers.clone(),
        // Nobody in the local network could reach a loopback address.
        mdns: discovery.mdns && network.listen.iter().any(|address| !is_loopback(address)),
        compare_interval: Duration::from_secs(network.compare_interval_s),
    })
}

/// The addresses to listen on. Those that nobody chose give way to another program, so that a second node runs beside
/// the first one; those that somebody chose do not.
fn addresses(network: &Network) -> Vec<String> {
    let defaults = Network::default().listen;
    if network.listen != defaults || defaults.iter().all(|address| is_free(address)) {
        return network.listen.clone();
    }
    tracing::warn!(
        taken = ?defaults,
        "other nodes are answered on free ports, new ones at each start; name addresses with --listen (network.listen)"
    );
    defaults.iter().map(|address| on_any_port(address)).collect()
}

fn is_loopback(address: &str) -> bool {
    address.split('/').nth(2).and_then(|host| host.parse().ok()).is_some_and(|host: IpAddr| host.is_loopback())
}

fn is_free(address: &str) -> bool {
    let mut parts = address.split('/').skip(2);
    let (Some(host), Some(transport), Some(port)) = (parts.next(), parts.next(), parts.next()) else { return true };
    let (Ok(host), Ok(port)) = (host.parse::<IpAddr>(), port.parse::<u16>()) else { return true };
    let socket = SocketAddr::from((host, port));
    if transport == "udp" { UdpSocket::bind(socket).is_ok() } else { TcpListener::bind(socket).is_ok() }
}

fn on_any_port(address: &str) -> String {
    let part = |(index, part)| if index == 4 { "0" } else { part };
    address.split('/').enumerate().map(part).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(listen: &[&str]) -> Network {
        Network { listen: listen.iter().map(ToString::to_string).collect(), ..Network::default() }
    }

    #[test]
    fn without_an_address_there_is_no_network() {
        assert!(options(&network(&[]), &Discovery { mdns: true }).is_none());
    }

    #[test]
    fn nodes_are_looked_for_where_they_could_come_from() {
        let mdns = |listen: &[&str], mdns| options(&network(listen), &Discovery { mdns }).expect("a network").mdns;
        let (loopback, everywhere) = ("/ip4/127.0.0.1/tcp/0", "/ip4/0.0.0.0/tcp/0");
        assert!(!mdns(&[loopback, "/ip6/::1/tcp/0"], true));
        assert!(mdns(&[loopback, everywhere], true) && mdns(&["/dns/a/tcp/1"], true));
        assert!(!mdns(&[everywhere], false));
    }

    #[test]
    fn a_default_address_that_is_taken_gives_way_and_a_chosen_one_does_not() {
        let held = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = held.local_addr().expect("an address").port();
        let taken = format!("/ip4/127.0.0.1/tcp/{port}");
        assert!(!is_free(&taken));
        assert_eq!(addresses(&network(&[&taken])), [taken.as_str()]);
        assert_eq!(on_any_port(&taken), "/ip4/127.0.0.1/tcp/0");
        assert_eq!(on_any_port("/ip4/127.0.0.1/udp/8422/quic-v1"), "/ip4/127.0.0.1/udp/0/quic-v1");
        drop(held);
        assert!(is_free(&taken));
    }
}
