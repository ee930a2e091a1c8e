//! Addresses of the hub and of where it redirects.

use std::fmt;

use ureq::http::Uri;

/// Longer ones are refused; signed ones of content networks have less than 2 KiB.
const LONGEST: usize = 8 << 10;

/// An address with `http` or `https`, a host, and neither user nor fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    uri: Uri,
    origin: Origin,
}

/// Who answers: scheme, host and port. A token belongs to one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    is_https: bool,
    host: String,
    port: u16,
}

impl Address {
    /// Reads an absolute address.
    ///
    /// # Errors
    /// In words, without the text.
    pub(super) fn parse(text: &str) -> Result<Address, &'static str> {
        if text.len() > LONGEST {
            return Err("longer than 8 KiB");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("it has spaces, control characters or letters beyond ASCII");
        }
        let text = text.split_once('#').map_or(text, |(before, _)| before);
        let uri: Uri = text.parse().map_err(|_| "not an address")?;
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("it begins with neither http:// nor https://"),
        };
        let authority = uri.authority().ok_or("it names no host")?;
        if authority.as_str().contains('@') {
            return Err("it names a user");
        }
        let host = authority.host();
        if host.is_empty() {
            return Err("it names no host");
        }
        // `port_u16` takes what is no port for none.
        let port = match authority.as_str().strip_prefix(host) {
            Some("") => Some(if is_https { 443 } else { 80 }),
            Some(rest) => rest
                .strip_prefix(':')
                .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|digits| digits.parse().ok())
                .filter(|port| *port != 0),
            None => None,
        };
        let origin = Origin { is_https, host: host.to_ascii_lowercase(), port: port.ok_or("its port is no port")? };
        Ok(Address { uri, origin })
    }

    /// Where a `Location` of this address's answer leads.
    ///
    /// # Errors
    /// In words; also where it would leave `https` for `http`.
    pub(super) fn join(&self, location: &str) -> Result<Address, &'static str> {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        let path = self.uri.path();
        let begin = location.find(['/', '?', '#']).unwrap_or(location.len());
        let text = if location.starts_with("//") {
            format!("{scheme}:{location}")
        } else if location[..begin].contains(':') {
            location.to_owned()
        } else if location.starts_with('/') {
            format!("{scheme}://{authority}{location}")
        } else if location.is_empty() || location.starts_with(['?', '#']) {
            format!("{scheme}://{authority}{path}{location}")
        } else {
            let folder = path.rfind('/').map_or("/", |last| &path[..=last]);
            format!("{scheme}://{authority}{folder}{location}")
        };
        let next = Address::parse(&text)?;
        if self.origin.is_https && !next.origin.is_https {
            return Err("it leads from https to http");
        }
        Ok(next)
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }
}

impl fmt::Display for Origin {
    /// Host, and port where it is none that goes without saying.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.is_https, self.port) {
            (true, 443) | (false, 80) => f.write_str(&self.host),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_scheme_host_and_port() {
        let origin = |text: &str| Address::parse(text).unwrap().origin().clone();
        assert_eq!(origin("https://Hub.example/a?b#c"), origin("https://hub.example:443/"));
        assert_eq!(origin("http://hub.example"), origin("http://hub.example:80/x"));
        for other in [
            "http://hub.example/",
            "https://hub.example:444/",
            "https://hub.example.evil/",
            "https://evil/hub.example",
            "https://hub.example./",
            "https://www.hub.example/",
        ] {
            assert_ne!(origin("https://hub.example/"), origin(other), "{other}");
        }
        assert_eq!(origin("http://[::1]:8080/").to_string(), "[::1]:8080");
        assert_eq!(origin("https://hub.example/").to_string(), "hub.example");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "hub.example",
            "/a",
            "//hub/a",
            "ftp://hub/",
            "file:///etc/passwd",
            "https:///a",
            "http://",
            "https://user@hub/",
            "https://user:word@hub/",
            "https://hub:99999/",
            "https://hub:0/",
            "https://hub:x/",
            "https://hub:/",
            "https://hub:+80/",
            "https://hub/a b",
            "https://hub/\n",
            "https://hub/\u{1b}",
            "https://hüb/",
            "javascript:alert(1)",
            "data:,x",
        ] {
            assert!(Address::parse(text).is_err(), "{text:?}");
        }
        assert!(Address::parse(&format!("http://hub/{}", "a".repeat(LONGEST))).is_err());
    }

    #[test]
    fn redirects_of_every_form() {
        let from = Address::parse("https://hub:8443/a/b?c").unwrap();
        for (location, wanted) in [
            ("/x", "https://hub:8443/x"),
            ("x", "https://hub:8443/a/x"),
            ("x?y:z", "https://hub:8443/a/x?y:z"),
            ("?y", "https://hub:8443/a/b?y"),
            ("", "https://hub:8443/a/b"),
            ("#f", "https://hub:8443/a/b"),
            ("//other/x", "https://other/x"),
            ("https://other/x#f", "https://other/x"),
        ] {
            assert_eq!(from.join(location).unwrap().uri().to_string(), wanted, "{location}");
        }
        for location in ["http://hub:8443/x", "ftp://x/", "//u@other/x", "//", "///x", "/x y", "mailto:x", "x:y"] {
            assert!(from.join(location).is_err(), "{location}");
        }
        let plain = Address::parse("http://hub/").unwrap();
        assert!(plain.join("https://hub/").is_ok());
    }
}
