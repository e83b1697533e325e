//! A grant handed on never reaches further than it did.

use kvspace_protocol::capability::{Ability, Capability, Resource};
use proptest::prelude::*;

const SPACES: [&str; 3] = [
    "tinycloud:key:z6Mk:default",
    "tinycloud:key:z6Mk:default2",
    "tinycloud:pkh:eip155:1:0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266:default",
];

fn space_resource() -> impl Strategy<Value = String> {
    let space = prop::sample::select(SPACES.to_vec());
    let service = prop::sample::select(vec!["kv", "kv2", "sql"]);
    let path = prop::option::of("[ab/]{0,5}");
    let query = prop::option::of("[ab]{0,1}");
    let fragment = prop::option::of("[ab]{0,1}");
    (space, service, path, query, fragment).prop_map(|(space, service, path, query, fragment)| {
        let part = |mark: &str, text: Option<String>| text.map_or_else(String::new, |text| format!("{mark}{text}"));
        format!("{space}/{service}{}{}{}", part("/", path), part("?", query), part("#", fragment))
    })
}

fn resource() -> impl Strategy<Value = Resource> {
    let text = prop_oneof![
        6 => space_resource(),
        1 => "urn:(cid:)?[ab]{0,2}",
        1 => "urn:tinycloud:encryption:(did:key:z6Mk:)?[ab]{0,2}",
        1 => "(t|urn:|tinycloud:|)",
    ];
    text.prop_map(|text| Resource::parse(&text))
}

/// A resource, and another that often lies beneath it.
fn pair() -> impl Strategy<Value = (Resource, Resource)> {
    let beneath = (resource(), "[ab/]{0,3}").prop_map(|(base, more)| {
        let child = Resource::parse(&format!("{base}{more}"));
        (base, child)
    });
    prop_oneof![beneath, (resource(), resource())]
}

fn ability() -> impl Strategy<Value = Ability> {
    let names = [
        "tinycloud.kv/get",
        "tinycloud.kv/del",
        "tinycloud.kv/delete",
        "tinycloud.kv/*",
        "tinycloud.sql/*",
        "tinycloud.sql/admin",
        "tinycloud.sql/schema",
        "tinycloud.sql/read",
        "tinycloud.sql/select",
        "tinycloud.duckdb/*",
        "tinycloud.duckdb/select",
        "tinycloud.duckdb/read",
        "other/*",
        "other/get",
    ];
    prop::sample::select(names.to_vec()).prop_map(|name| name.parse().expect("an ability"))
}

fn capability() -> impl Strategy<Value = Capability> {
    (resource(), ability()).prop_map(|(resource, ability)| Capability {
        resource,
        ability,
        caveats: Default::default(),
    })
}

/// The same rule said otherwise: the text up to and with the next slash has to be there.
fn reaches(base: Option<&str>, path: Option<&str>) -> bool {
    let Some(base) = base else { return true };
    let Some(path) = path else { return false };
    path == base || path.starts_with(&if base.ends_with('/') { base.to_owned() } else { format!("{base}/") })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_resource_covers_what_lies_beneath_and_nothing_else((base, child) in pair()) {
        prop_assert!(base.covers(&base));
        let (Resource::Space(_), Resource::Space(_)) = (&base, &child) else {
            prop_assert!(!base.covers(&child) || base.root() == child.root());
            return Ok(());
        };
        let fragment = |resource: &Resource| resource.text().split_once('#').map(|(_, text)| text.to_owned());
        let expected = base.space() == child.space()
            && base.service() == child.service()
            && fragment(&base) == fragment(&child)
            && reaches(base.path(), child.path());
        prop_assert_eq!(base.covers(&child), expected);
    }

    #[test]
    fn covering_carries_over_a_chain_of_resources((a, b) in pair(), more in "[ab/]{0,3}") {
        let c = Resource::parse(&format!("{b}{more}"));
        prop_assert!(!(a.covers(&b) && b.covers(&c)) || a.covers(&c), "{:?} {:?} {:?}", a, b, c);
    }

    #[test]
    fn a_grant_handed_on_reaches_no_more_than_the_one_it_rests_on(
        held in capability(),
        granted in capability(),
        used in capability(),
    ) {
        prop_assert!(!(held.covers(&granted) && granted.covers(&used)) || held.covers(&used));
    }

    #[test]
    fn covering_carries_over_a_chain_of_abilities(a in ability(), b in ability(), c in ability()) {
        prop_assert!(a.covers(&a));
        prop_assert!(!(a.covers(&b) && b.covers(&c)) || a.covers(&c), "{} {} {}", a, b, c);
    }

    #[test]
    fn a_grant_never_leaves_its_root((base, child) in pair()) {
        if base.covers(&child) && base.root().is_some() {
            prop_assert_eq!(base.root(), child.root());
        }
    }

    #[test]
    fn every_text_is_a_resource_and_keeps_its_spelling(text in ".{0,40}") {
        let resource = Resource::parse(&text);
        prop_assert_eq!(resource.text(), &text);
    }
}
