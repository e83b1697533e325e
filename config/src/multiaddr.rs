//! What a multiaddress looks like. Whether it can be used is for the network to say.

/// Says what keeps a text from being the multiaddress of a node: `/ip4/<address>/tcp/<port>` or
/// `/dns/<name>/udp/<port>/quic-v1`, with `/p2p/<peer>` behind it or not.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let mut parts = text.strip_prefix('/').ok_or("it begins with a slash, like /ip4/127.0.0.1/tcp/8422")?.split('/');
    let mut next = |what: &str| parts.next().filter(|part| !part.is_empty()).ok_or(format!("{what} is missing"));
    let kind = next("the kind of address (ip4, ip6, dns)")?;
    let host = next("the address")?;
    match kind {
        "ip4" => host.parse::<std::net::Ipv4Addr>().map(drop).map_err(|_| format!("{host} is no IPv4 address"))?,
        "ip6" => host.parse::<std::net::Ipv6Addr>().map(drop).map_err(|_| format!("{host} is no IPv6 address"))?,
        "dns" | "dns4" | "dns6" | "dnsaddr" => {}
        other => return Err(format!("/{other} is not known; write /ip4, /ip6 or /dns")),
    }
    if kind == "dnsaddr" {
        return Ok(());
    }
    let transport = next("the transport (tcp, udp)")?;
    let port = next("the port")?;
    port.parse::<u16>().map_err(|_| format!("{port} is no port"))?;
    match transport {
        "tcp" => {}
        "udp" if next("/quic-v1 behind the port").is_ok_and(|name| name == "quic-v1") => {}
        "udp" => return Err("a udp address goes on with /quic-v1".into()),
        other => return Err(format!("/{other} is not known; write /tcp/<port> or /udp/<port>/quic-v1")),
    }
    match parts.next() {
        None => Ok(()),
        Some("p2p") if parts.next().is_some_and(|peer| !peer.is_empty()) && parts.next().is_none() => Ok(()),
        Some(_) => Err("what follows can only be /p2p/<peer>".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_nodes_are_known_and_others_are_not() {
        for good in [
            "/ip4/127.0.0.1/tcp/0",
            "/ip4/0.0.0.0/udp/8422/quic-v1",
            "/ip6/::1/tcp/1",
            "/dns/kv.example.org/tcp/8422/p2p/12D3KooWGatU",
            "/dnsaddr/kv.example.org",
            "/ip4/10.0.0.1/udp/1/quic-v1/p2p/12D3KooWGatU",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:8422",
            "/ip4",
            "/ip4/localhost/tcp/1",
            "/ip6/127.0.0.1/tcp/1",
            "/ip4/127.0.0.1",
            "/ip4/127.0.0.1/tcp",
            "/ip4/127.0.0.1/tcp/70000",
            "/ip4/127.0.0.1/udp/1",
            "/ip4/127.0.0.1/udp/1/quic",
            "/ip4/127.0.0.1/sctp/1",
            "/unix/a/tcp/1",
            "/ip4/127.0.0.1/tcp/1/",
            "/ip4/127.0.0.1/tcp/1/ws",
            "/ip4/127.0.0.1/tcp/1/p2p/",
            "/ip4/127.0.0.1/tcp/1/p2p/a/b",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
