//! Tokens of requests: read once, checked once.

use std::sync::Arc;

use kvspace_protocol::{authority::Proof, capability::Token, id::Millis};
use warp::http::{HeaderMap, header};

use super::{
    error::{Call, HttpError},
    keys::Keys,
};

/// Reads the token of a request.
pub(crate) fn token(headers: &HeaderMap) -> Result<Token, HttpError> {
    Token::from_header(authorization(headers)?).map_err(|error| HttpError::token(&error))
}

/// Checks time, then signature.
pub(crate) fn verified(call: Call, token: Token, now: Millis) -> Result<Proof, HttpError> {
    if !token.in_force(now) {
        return Err(HttpError::expired(call));
    }
    token.verify().map(Arc::new).map_err(|_| HttpError::signature(call))
}

/// Reads and checks an invocation: a UCAN that is in force, signed, and does not live longer than `lifetime_max_ms`
/// from now.
pub(crate) fn invocation(
    headers: &HeaderMap,
    now: Millis,
    lifetime_max_ms: i64,
    keys: &Keys,
) -> Result<Proof, HttpError> {
    let text = authorization(headers)?;
    if !text.contains('.') {
        return Err(HttpError::malformed_token("an invocation is a UCAN (three parts with dots between)"));
    }
    let token = Token::from_header(text).map_err(|error| HttpError::token(&error))?;
    if !token.in_force(now) {
        return Err(HttpError::expired(Call::Invoke));
    }
    let proof = token.verify_with(keys).map_err(|_| HttpError::signature(Call::Invoke))?;
    if proof.expiry().is_none_or(|expiry| expiry > now.plus(lifetime_max_ms)) {
        return Err(HttpError::lifetime());
    }
    Ok(Arc::new(proof))
}

fn authorization(headers: &HeaderMap) -> Result<&str, HttpError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (None, _) => Err(HttpError::missing_token()),
        (Some(value), None) => value.to_str().map_err(|_| HttpError::malformed_token("a token is plain ASCII text")),
        (Some(_), Some(_)) => Err(HttpError::malformed_token("a request carries one token")),
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use kvspace_protocol::capability::build::{Claims, ucan};

    use super::*;

    const NOW: Millis = Millis(1_000_000);
    const LIFETIME_MS: i64 = 300_000;

    fn headers(token: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, token.parse().expect("a value"))])
    }

    fn signed(claims: &Claims) -> String {
        ucan(claims, &SigningKey::from_bytes(&[1; 32])).expect("a token").to_header()
    }

    #[test]
    fn an_invocation_is_taken_within_its_time_and_lifetime() {
        let token = |expiry: i64| signed(&Claims::until(Millis(expiry)));
        assert!(invocation(&headers(&token(NOW.0)), NOW, LIFETIME_MS, &Keys::default()).is_ok());
        assert!(invocation(&headers(&token(NOW.0 + LIFETIME_MS)), NOW, LIFETIME_MS, &Keys::default()).is_ok());
        let refused =
            |token: &str| invocation(&headers(token), NOW, LIFETIME_MS, &Keys::default()).expect_err("refused");
        assert_eq!(refused(&token(NOW.0 - 1)), HttpError::expired(Call::Invoke));
        assert_eq!(refused(&token(NOW.0 + LIFETIME_MS + 1)), HttpError::lifetime());
        let early = Claims { not_before: Some(NOW.plus(1)), ..Claims::until(NOW.plus(2)) };
        assert_eq!(refused(&signed(&early)), HttpError::expired(Call::Invoke));
    }

    #[test]
    fn time_is_judged_before_the_signature_and_the_signature_before_the_lifetime() {
        let tampered = |expiry: i64| {
            let token = signed(&Claims::until(Millis(expiry)));
            let other = signed(&Claims { nonce: Some("other".into()), ..Claims::until(Millis(expiry)) });
            let (text, _) = token.rsplit_once('.').expect("three parts");
            let (_, signature) = other.rsplit_once('.').expect("three parts");
            format!("{text}.{signature}")
        };
        let refused =
            |token: &str| invocation(&headers(token), NOW, LIFETIME_MS, &Keys::default()).expect_err("refused");
        assert_eq!(refused(&tampered(NOW.0 - 1)), HttpError::expired(Call::Invoke));
        assert_eq!(refused(&tampered(NOW.0 + LIFETIME_MS + 1)), HttpError::signature(Call::Invoke));
    }

    #[test]
    fn what_is_no_single_ucan_is_refused() {
        assert_eq!(
            invocation(&HeaderMap::new(), NOW, LIFETIME_MS, &Keys::default()).err(),
            Some(HttpError::missing_token())
        );
        let token = signed(&Claims::until(NOW));
        for bad in ["", "garbage", "a.b.c", &format!("Bearer {token}"), "o2FooWF0Z2VpcDQzNjFhcA=="] {
            assert!(invocation(&headers(bad), NOW, LIFETIME_MS, &Keys::default()).is_err(), "{bad}");
        }
        let mut twice = headers(&token);
        twice.append(header::AUTHORIZATION, token.parse().expect("a value"));
        assert!(invocation(&twice, NOW, LIFETIME_MS, &Keys::default()).is_err());
    }
}
