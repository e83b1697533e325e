//! A node small enough to read: it checks tokens with the protocol and keeps values in a map.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use kvspace_client::{BlobHash, EpochId};
use kvspace_protocol::capability::{Role, Token};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// What the node holds and what it was asked.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) values: BTreeMap<String, (Bytes, HeaderMap)>,
    pub(crate) tokens: Vec<(String, Token)>,
    pub(crate) writes: u64,
    /// Given instead of a stored value.
    pub(crate) damaged: Option<Bytes>,
    /// Spaces are left out of delegations.
    pub(crate) skips: bool,
}

#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) held: Arc<Mutex<Held>>,
    pub(crate) address: SocketAddr,
}

pub(crate) const HOST: &str = "did:key:z6MkneMkZqwqRiU5mJzSG3kDwzt9P8C59N4NGTfBLfSGE7c7";

impl Node {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let node = Self { held: Arc::default(), address: listener.local_addr().expect("an address") };
        let serving = node.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let node = serving.clone();
                tokio::spawn(async move {
                    let answer = service_fn(|request| async { Ok::<_, Infallible>(node.answer(request).await) });
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        node
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else { return plain(400, "no body") };
        let body = body.to_bytes();
        let path = head.uri.path().to_owned();
        if path == "/info" {
            return plain(200, r#"{"protocol":1,"version":"0","features":["kv"],"nodeId":"did:key:z","inTEE":false}"#);
        }
        if path.starts_with("/peer/generate/") {
            return plain(200, HOST);
        }
        let Some(token) = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
            return plain(401, "no token");
        };
        let Some(token) = Token::from_header(token).ok().and_then(|token| token.verify().ok()) else {
            return plain(401, "Failed to verify signature");
        };
        let mut held = self.held.lock().expect("no panic");
        held.tokens.push((path.clone(), (*token).clone()));
        match (&head.method, path.as_str()) {
            (&Method::POST, "/delegate") => {
                let spaces: Vec<String> =
                    token.capabilities().iter().filter_map(|held| Some(held.resource.space()?.to_string())).collect();
                let (activated, skipped) = if held.skips { (vec![], spaces) } else { (spaces, vec![]) };
                let answer = serde_json::json!({ "cid": token.address(), "activated": activated, "skipped": skipped });
                plain(200, &answer.to_string())
            }
            (&Method::POST, "/revoke") => {
                let Role::Revocation { target } = token.role() else { return plain(403, "no revocation") };
                plain(200, &serde_json::json!({ "revoked": true, "cid": target }).to_string())
            }
            (&Method::GET, "/v0/frontier") => {
                plain(200, &serde_json::json!({ "frontier": [EpochId::of(b"head")] }).to_string())
            }
            (&Method::POST, "/invoke") => held.invoke(&token, &head.headers, body),
            _ => plain(404, "what?"),
        }
    }
}

impl Held {
    fn invoke(&mut self, token: &Token, headers: &HeaderMap, body: Bytes) -> Response<Full<Bytes>> {
        let asked = &token.capabilities()[0];
        let key = asked.resource.path().unwrap_or_default().to_owned();
        match asked.ability.name() {
            "put" => {
                let content = &token.content().expect("a put signs its content")[asked.resource.text()];
                assert_eq!((content.cid, content.size), (BlobHash::of(&body), body.len() as u64));
                if headers.contains_key(header::IF_NONE_MATCH) && self.values.contains_key(&key) {
                    return plain(412, "KV precondition failed");
                }
                let stored: HeaderMap = (headers.iter())
                    .filter(|(name, _)| content.meta.contains_key(name.as_str()))
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect();
                assert_eq!(stored.len(), content.meta.len(), "every signed header is sent");
                self.values.insert(key, (body.clone(), stored));
                self.written(&body)
            }
            "del" => match self.values.remove(&key) {
                Some((body, _)) => self.written(&body),
                None => plain(404, &format!("No Such Key: {key}")),
            },
            "get" | "metadata" => {
                let Some((bytes, stored)) = self.values.get(&key) else { return plain(404, "Key not found") };
                let whole = if asked.ability.name() == "get" { bytes.clone() } else { Bytes::new() };
                let mut response = Response::new(Full::new(self.damaged.clone().unwrap_or(whole)));
                response.headers_mut().extend(stored.clone());
                response.headers_mut().insert(header::ETAG, value(&BlobHash::of(bytes).etag()));
                response.headers_mut().insert("x-kvspace-integrity", value("client-signed"));
                response
            }
            "list" => {
                let limit: usize = headers["x-tinycloud-limit"].to_str().expect("text").parse().expect("a number");
                let from = headers.get("x-tinycloud-cursor").map_or("", |cursor| cursor.to_str().expect("text"));
                let beneath = |path: &&String| key.is_empty() || path.starts_with(&format!("{key}/"));
                let all: Vec<&String> =
                    self.values.keys().filter(beneath).filter(|path| path.as_str() > from).collect();
                let page = &all[..all.len().min(limit)];
                let mut response = plain(200, &serde_json::to_string(page).expect("text"));
                let truncated = page.len() < all.len();
                response.headers_mut().insert("x-tinycloud-truncated", value(&truncated.to_string()));
                if let Some(last) = page.last().filter(|_| truncated) {
                    response.headers_mut().insert("x-tinycloud-next-cursor", value(last));
                }
                response
            }
            _ => plain(200, ""),
        }
    }

    fn written(&mut self, body: &Bytes) -> Response<Full<Bytes>> {
        self.writes += 1;
        let mut response = plain(200, "");
        response.headers_mut().insert(header::ETAG, value(&BlobHash::of(body).etag()));
        let epoch = EpochId::of(&self.writes.to_be_bytes());
        response.headers_mut().insert("x-kvspace-frontier", value(&epoch.to_string()));
        response.headers_mut().insert("x-kvspace-version", value(&format!("{}-0", self.writes)));
        response
    }
}

fn plain(status: u16, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("a header")
}

/// What a broken node does once it has read the head of a request.
#[derive(Clone, Copy)]
pub(crate) enum Trouble {
    /// Says nothing any more.
    Stalls,
    /// Closes the connection.
    Closes,
    /// Begins a body and says nothing any more.
    StallsInBody,
    /// Begins a body and closes the connection.
    CutsBody,
    /// Closes the first connection, answers on the next.
    ClosesOnce,
    /// Refuses without reading the body.
    RefusesEarly,
}

/// A node that gives trouble; the address it has.
pub(crate) async fn troubled(trouble: Trouble) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut open, mut count) = (Vec::new(), 0);
        while let Ok((mut stream, _)) = listener.accept().await {
            read_head(&mut stream).await;
            count += 1;
            let said = match trouble {
                Trouble::Stalls | Trouble::Closes => "",
                Trouble::ClosesOnce if count == 1 => "",
                Trouble::ClosesOnce => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                Trouble::StallsInBody | Trouble::CutsBody => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegin",
                Trouble::RefusesEarly => {
                    "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 9\r\nx-kvspace-error: too_large\r\n\r\ntoo large"
                }
            };
            let _ = stream.write_all(said.as_bytes()).await;
            let _ = stream.flush().await;
            match trouble {
                Trouble::Stalls | Trouble::StallsInBody | Trouble::RefusesEarly => open.push(stream),
                Trouble::Closes | Trouble::ClosesOnce | Trouble::CutsBody => drop(stream),
            }
        }
    });
    format!("http://{address}")
}

async fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
}
