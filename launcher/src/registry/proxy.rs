//! Proxies, as the environment names them: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in
//! either case, with the meanings that Go gives them and so podman and docker have. An HTTP proxy is asked
//! for a tunnel (`CONNECT`), also to a registry of plain HTTP.

use std::net::IpAddr;

/// The proxies of the environment.
#[derive(Clone, Default)]
pub(super) struct Proxies {
    https: Option<String>,
    http: Option<String>,
    exempt: Vec<String>,
}

impl Proxies {
    pub(super) fn from_env() -> Self {
        Self::from(&|name| std::env::var(name).ok())
    }

    fn from(var: &dyn Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| {
            [name.to_ascii_lowercase(), name.to_owned()]
                .iter()
                .find_map(|n| var(n))
                .filter(|v| !v.trim().is_empty())
        };
        let all = get("ALL_PROXY");
        Self {
            https: get("HTTPS_PROXY").or_else(|| all.clone()),
            http: get("HTTP_PROXY").or(all),
            exempt: get("NO_PROXY")
                .unwrap_or_default()
                .split(',')
                .map(|rule| rule.trim().to_ascii_lowercase())
                .filter(|rule| !rule.is_empty())
                .collect(),
        }
    }

    /// The proxy for a host (an IPv6 address without brackets) and port; none for this machine.
    pub(super) fn of(&self, https: bool, host: &str, port: u16) -> Option<&str> {
        let proxy = if https { &self.https } else { &self.http };
        let host = host.to_ascii_lowercase();
        if is_loopback(&host) || self.exempt.iter().any(|rule| fits(rule, &host, port)) {
            return None;
        }
        proxy.as_deref()
    }
}

/// Whether `host` is this machine by name or address.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn fits(rule: &str, host: &str, port: u16) -> bool {
    if rule == "*" {
        return true;
    }
    let (rule, only_port) = match rule.rsplit_once(':') {
        Some((name, p)) if !name.contains(':') || name.ends_with(']') => match p.parse::<u16>() {
            Ok(p) => (name, Some(p)),
            Err(_) => (rule, None),
        },
        _ => (rule, None),
    };
    if only_port.is_some_and(|p| p != port) {
        return false;
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        let bare = |text: &str| text.replace(['[', ']'], "");
        return match rule.split_once('/') {
            Some((net, bits)) => in_network(ip, &bare(net), bits),
            None => bare(rule).parse::<IpAddr>().is_ok_and(|r| r == ip),
        };
    }
    let rule = rule
        .strip_prefix("*.")
        .or(rule.strip_prefix('.'))
        .unwrap_or(rule);
    host == rule
        || host
            .strip_suffix(rule)
            .is_some_and(|before| before.ends_with('.'))
}

fn in_network(ip: IpAddr, net: &str, bits: &str) -> bool {
    let (Ok(net), Ok(bits)) = (net.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    match (ip, net) {
        (IpAddr::V4(ip), IpAddr::V4(net)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            (ip.to_bits() ^ net.to_bits()) & mask == 0
        }
        (IpAddr::V6(ip), IpAddr::V6(net)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            (ip.to_bits() ^ net.to_bits()) & mask == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scheme_has_its_proxy_and_some_hosts_have_none() {
        let p = Proxies::from(&|name| {
            Some(match name {
                "https_proxy" => "http://a:1".to_owned(),
                "HTTPS_PROXY" => "http://not-this:1".to_owned(),
                "ALL_PROXY" => "socks5://b:2".to_owned(),
                "NO_PROXY" => "quay.io, .corp,10.0.0.0/8, other.org:443,[fd00::]/8".to_owned(),
                _ => return None,
            })
        });
        assert_eq!(p.of(true, "docker.io", 443), Some("http://a:1"));
        assert_eq!(p.of(false, "docker.io", 80), Some("socks5://b:2"));
        for (host, port) in [
            ("quay.io", 443),
            ("cdn.QUAY.io", 443),
            ("x.corp", 443),
            ("10.2.3.4", 5000),
            ("other.org", 443),
            ("localhost", 5000),
            ("127.0.0.2", 5000),
            ("::1", 5000),
            ("fd00::1", 443),
        ] {
            assert_eq!(p.of(true, host, port), None, "{host}");
        }
        for (host, port) in [("notquay.io", 443), ("other.org", 5000), ("11.2.3.4", 443)] {
            assert!(p.of(true, host, port).is_some(), "{host}");
        }
        assert_eq!(Proxies::from(&|_| None).of(true, "x", 1), None);
    }
}
