//! Where something may be done: a resource of a space, or any other URI.

use std::{fmt, sync::Arc};

use crate::{
    id::{Did, Key, SpaceId},
    uri,
};

const ENCRYPTION: &str = "urn:tinycloud:encryption:";

/// What a capability is about.
///
/// Every text is a resource: one that is not `<space>/<service>[/<path>]` in normal form is another URI, which nobody
/// owns (but see [`Resource::root`]), so a token that names it simply ends up unauthorised.
#[derive(Clone, PartialEq, Eq)]
pub enum Resource {
    /// Something in a space.
    Space(SpaceResource),
    /// Any other text.
    Other(Arc<str>),
}

/// A resource of a space: `<space>/<service>[/<path>][?<query>][#<fragment>]`, in RFC 3986 normal form.
#[derive(Clone, PartialEq, Eq)]
pub struct SpaceResource {
    text: Arc<str>,
    space: SpaceId,
    service: Arc<str>,
    path: Option<Arc<str>>,
    fragment: Option<Arc<str>>,
}

impl Resource {
    /// Reads a resource; what is no resource of a space is [`Resource::Other`].
    #[must_use]
    pub fn parse(text: &str) -> Self {
        SpaceResource::parse(text).map_or_else(|| Self::Other(text.into()), Self::Space)
    }

    /// The resource of this space, service and path. No path is the whole service; an empty one is not.
    #[must_use]
    pub fn in_space(space: &SpaceId, service: &str, path: Option<&str>) -> Self {
        match path {
            Some(path) => Self::parse(&format!("{space}/{service}/{path}")),
            None => Self::parse(&format!("{space}/{service}")),
        }
    }

    /// The text as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Space(resource) => &resource.text,
            Self::Other(text) => text,
        }
    }

    /// The space, if it is in one.
    #[must_use]
    pub fn space(&self) -> Option<&SpaceId> {
        self.in_a_space().map(|resource| &resource.space)
    }

    /// The service, `kv` for instance, if it is in a space.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        self.in_a_space().map(|resource| &*resource.service)
    }

    /// The path in the service. `None` for the whole service, `Some("")` for a bare `/` after it.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.in_a_space().and_then(|resource| resource.path.as_deref())
    }

    /// The key this names: the path of a `kv` resource.
    #[must_use]
    pub fn key(&self) -> Option<Key> {
        self.in_a_space().filter(|resource| &*resource.service == "kv").and_then(|resource| resource.path.clone())
    }

    /// The DID whose own word is enough for this resource: the owner of its space, or the DID that an encryption
    /// network `urn:tinycloud:encryption:<did>:<name>` names. No other resource has a root.
    #[must_use]
    pub fn root(&self) -> Option<Did> {
        match self {
            Self::Space(resource) => Some(resource.space.owner().clone()),
            Self::Other(text) => {
                let (did, name) = text.strip_prefix(ENCRYPTION)?.rsplit_once(':')?;
                if name.is_empty() || did.contains('#') || !uri::is_normal_path(name) || name.contains('/') {
                    return None;
                }
                did.parse().ok()
            }
        }
    }

    /// Whether a grant on this resource reaches `child`.
    ///
    /// In a space: same space, service and fragment, and the path is the same or lies beneath, at a `/`. Other URIs:
    /// a prefix; encryption networks: equality.
    #[must_use]
    pub fn covers(&self, child: &Self) -> bool {
        match (self, child) {
            (Self::Space(base), Self::Space(child)) => base.covers(child),
            (Self::Other(base), Self::Other(child)) => {
                let network = base.starts_with(ENCRYPTION) || child.starts_with(ENCRYPTION);
                if network { base == child } else { child.starts_with(&**base) }
            }
            (Self::Space(_), Self::Other(_)) | (Self::Other(_), Self::Space(_)) => false,
        }
    }

    fn in_a_space(&self) -> Option<&SpaceResource> {
        match self {
            Self::Space(resource) => Some(resource),
            Self::Other(_) => None,
        }
    }
}

impl SpaceResource {
    fn parse(text: &str) -> Option<Self> {
        let (rest, fragment) = cut(text, '#');
        let (rest, query) = cut(rest, '?');
        let (space, rest) = rest.split_once('/')?;
        let (service, path) = cut(rest, '/');
        let normal = !service.is_empty()
            && uri::is_normal_path(rest)
            && query.is_none_or(uri::is_normal_query)
            && fragment.is_none_or(uri::is_normal_query);
        normal.then_some(())?;
        Some(Self {
            text: text.into(),
            space: space.parse().ok()?,
            service: service.into(),
            path: path.map(Into::into),
            fragment: fragment.map(Into::into),
        })
    }

    fn covers(&self, child: &Self) -> bool {
        self.space == child.space
            && self.service == child.service
            && self.fragment == child.fragment
            && match (&self.path, &child.path) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(base), Some(path)) => lies_beneath(base, path),
            }
    }
}

/// Whether `path` is `base` or goes on at a segment's start.
#[must_use]
pub fn lies_beneath(base: &str, path: &str) -> bool {
    path.strip_prefix(base).is_some_and(|rest| base.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl fmt::Debug for SpaceResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: &str = "tinycloud:key:z6Mk:default";

    fn kv(path: &str) -> Resource {
        Resource::parse(&format!("{SPACE}/kv{path}"))
    }

    #[test]
    fn an_absent_path_is_not_an_empty_one() {
        assert_eq!(kv("").path(), None);
        assert_eq!(kv("/").path(), Some(""));
        assert_eq!(kv("//a").path(), Some("/a"));
        assert_eq!(kv("/a/").key().as_deref(), Some("a/"));
        assert_eq!(kv("").key(), None);
    }

    #[test]
    fn a_path_covers_itself_and_what_lies_beneath() {
        for (base, inside, outside) in [
            ("", ["", "/", "/docs"].as_slice(), [].as_slice()),
            ("/", &["/", "//a"], &["", "/a"]),
            ("/docs", &["/docs", "/docs/", "/docs/x"], &["", "/", "/docs2", "/doc", "/Docs"]),
            ("/docs/", &["/docs/", "/docs/x"], &["/docs", "/docs2/"]),
        ] {
            for path in inside {
                assert!(kv(base).covers(&kv(path)), "{base} {path}");
            }
            for path in outside {
                assert!(!kv(base).covers(&kv(path)), "{base} {path}");
            }
        }
    }

    #[test]
    fn service_space_and_fragment_bind_and_the_query_does_not() {
        assert!(!kv("").covers(&Resource::parse(&format!("{SPACE}/sql"))));
        assert!(!kv("").covers(&Resource::parse("tinycloud:key:z6Mk:other/kv")));
        assert!(!kv("/a").covers(&kv("/a#f")));
        assert!(!kv("/a#f").covers(&kv("/a")));
        assert!(kv("/a#f").covers(&kv("/a/b#f")));
        assert!(kv("/a?x=1").covers(&kv("/a?y")));
    }

    #[test]
    fn a_resource_out_of_normal_form_is_owned_by_nobody() {
        for text in [
            &format!("{SPACE}/kv/a/../b"),
            &format!("{SPACE}/kv/a b"),
            &format!("{SPACE}/kv/%2f"),
            &format!("{SPACE}/kv/%41"),
            &format!("{SPACE}/kv/é"),
            &format!("{SPACE}/kv/a#b#c"),
            &format!("{SPACE}/"),
            SPACE,
            "tinycloud://host/key:z6Mk:default/kv",
            "urn:cid:bafy",
            "",
        ] {
            let resource = Resource::parse(text);
            assert!(matches!(resource, Resource::Other(_)), "{text}");
            assert_eq!((resource.root(), resource.text()), (None, text));
        }
    }

    #[test]
    fn spellings_of_an_address_name_one_space() {
        let lower = Resource::parse("tinycloud:pkh:eip155:1:0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266:default/kv");
        let mixed = Resource::parse("tinycloud:pkh:eip155:1:0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266:default/kv/a");
        assert!(lower.covers(&mixed));
    }

    #[test]
    fn an_encryption_network_is_rooted_in_its_did_and_covers_only_itself() {
        let network = Resource::parse("urn:tinycloud:encryption:did:key:z6Mk:default");
        assert_eq!(network.root(), "did:key:z6Mk".parse().ok());
        assert!(network.covers(&network));
        assert!(!network.covers(&Resource::parse("urn:tinycloud:encryption:did:key:z6Mk:default2")));
        assert!(!Resource::parse("urn:tinycloud:").covers(&network));
        for text in ["did:key:z6Mk:", "did:key", "did:key:a#b:c", "did:key:a:b c", "did:key:a:b/c", "x:key:a:b"] {
            assert_eq!(Resource::parse(&format!("{ENCRYPTION}{text}")).root(), None, "{text}");
        }
    }

    #[test]
    fn another_uri_covers_by_prefix() {
        assert!(Resource::parse("urn:cid:").covers(&Resource::parse("urn:cid:bafy")));
        assert!(!Resource::parse("tinycloud:").covers(&kv("")));
    }
}
