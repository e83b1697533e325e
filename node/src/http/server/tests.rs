use std::sync::atomic::AtomicUsize;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinHandle,
};
use warp::Filter;

use super::*;
use crate::http::{headers::text, preflight, rejected};

const SHORT: Duration = Duration::from_millis(200);

fn limits() -> Limits {
    Limits {
        header_timeout: SHORT,
        write_idle: SHORT,
        connections_max: 100,
        connections_per_ip_max: 100,
        stop_timeout: Duration::from_secs(5),
    }
}

/// A server of a few toy routes.
struct Running {
    address: SocketAddr,
    closing: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(limits: Limits) -> Self {
        let panics = warp::path!("panic").map(|| -> Response { panic!("on purpose") });
        let slow = warp::path!("slow").then(|| async {
            sleep(SHORT * 3).await;
            text("done")
        });
        let endless = warp::path!("endless").then(std::future::pending::<Response>);
        let large = warp::path!("large").map(|| text(vec![b'a'; 64 << 20]));
        let hello = warp::path!("hello").and(warp::get()).map(|| text("hello"));
        let some = panics.or(slow).unify().or(endless).unify().or(large).unify();
        let routes = some.or(hello).unify().or(preflight()).unify().recover(rejected).unify().boxed();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let closing = CancellationToken::new();
        let server = Server { routes, cors: Cors::Any, limits };
        let task = tokio::spawn(server.run(listener, closing.clone()));
        Self { address, closing, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.expect("sent");
        rest(&mut stream).await
    }

    async fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await
    }
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.ok();
    String::from_utf8(bytes).expect("text")
}

#[tokio::test]
async fn answers_good_and_bad_are_open_to_other_origins() {
    let server = Running::start(limits()).await;
    for (path, status, words) in [
        ("/hello", "200 OK", "hello"),
        ("/nowhere", "404 Not Found", "x-kvspace-error: no_route"),
        ("/panic", "500 Internal Server Error", "x-kvspace-error: internal"),
    ] {
        let answer = server.get(path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains(words) && answer.contains("access-control-allow-origin: *"), "{answer}");
    }
    let answer = server.ask("OPTIONS /any/path HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("access-control-allow-methods"), "{answer}");
    let answer = server.ask("POST /hello HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("method_not_allowed"), "{answer}");
}

#[tokio::test]
async fn a_large_token_fits_into_the_head_and_a_huge_head_does_not() {
    let server = Running::start(limits()).await;
    let with_header = async |bytes: usize| {
        let token = "a".repeat(bytes);
        server
            .ask(&format!("GET /hello HTTP/1.1\r\nhost: a\r\nauthorization: {token}\r\nconnection: close\r\n\r\n"))
            .await
    };
    assert!(with_header(96 * 1024).await.starts_with("HTTP/1.1 200"));
    assert!(with_header(160 * 1024).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn the_head_has_the_same_bound_over_http_2() {
    let server = Running::start(limits()).await;
    for (bytes, status) in [(96 * 1024, 200), (160 * 1024, 431)] {
        let io = TokioIo::new(server.connect().await);
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
        tokio::spawn(connection);
        let request =
            Request::get(format!("http://{}/hello", server.address)).header("authorization", "a".repeat(bytes));
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).expect("a request");
        assert_eq!(client.send_request(request).await.expect("an answer").status(), status);
    }
}

#[tokio::test]
async fn a_connection_without_a_whole_head_is_closed_in_time() {
    let server = Running::start(limits()).await;
    for start in ["", "P", "PRI * HTTP/2.0\r\n", "GET /hello HTTP/1.1\r\nho", "GET /hello HTTP/1.1\r\nhost: a\r\n"] {
        let mut stream = server.connect().await;
        stream.write_all(start.as_bytes()).await.expect("sent");
        let closed = timeout(SHORT * 10, rest(&mut stream)).await;
        assert!(closed.is_ok_and(|answer| !answer.contains("200")), "{start:?}");
    }
}

#[tokio::test]
async fn an_address_holds_its_share_of_connections() {
    let server = Running::start(Limits { connections_per_ip_max: 2, ..limits() }).await;
    let (one, two) = (server.connect().await, server.connect().await);
    sleep(SHORT / 4).await;
    assert_eq!(rest(&mut server.connect().await).await, "");
    drop((one, two));
    sleep(SHORT / 4).await;
    assert!(server.get("/hello").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_their_turn() {
    let server = Running::start(Limits { connections_max: 1, ..limits() }).await;
    let held = server.connect().await;
    sleep(SHORT / 4).await;
    let waiting = server.get("/hello");
    tokio::pin!(waiting);
    assert!(timeout(SHORT / 4, waiting.as_mut()).await.is_err());
    drop(held);
    assert!(waiting.await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_that_takes_no_bytes_is_cut_off() {
    let server = Running::start(limits()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    sleep(SHORT * 5).await;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.ok();
    assert!(!bytes.is_empty() && bytes.len() < 64 << 20, "{}", bytes.len());
}

#[tokio::test]
async fn requests_under_way_end_when_the_server_stops() {
    let server = Running::start(limits()).await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    let mut slow = server.connect().await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    sleep(SHORT / 2).await;
    server.closing.cancel();
    assert!(rest(&mut slow).await.ends_with("done"));
    assert!(rest(&mut idle).await.ends_with("hello"));
    timeout(SHORT * 5, server.task).await.expect("it has stopped").expect("without a panic");
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn what_does_not_end_is_cut_off_when_the_server_stops() {
    let server = Running::start(Limits { stop_timeout: SHORT, ..limits() }).await;
    let mut endless = server.connect().await;
    endless.write_all(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    sleep(SHORT / 4).await;
    server.closing.cancel();
    timeout(SHORT * 10, server.task).await.expect("it has stopped").expect("without a panic");
    assert_eq!(rest(&mut endless).await, "");
}

#[tokio::test]
async fn many_clients_are_served_at_once_and_the_server_outlives_panics() {
    let server = Arc::new(Running::start(limits()).await);
    let served = Arc::new(AtomicUsize::new(0));
    let clients = (0..50).map(|number| {
        let (server, served) = (server.clone(), served.clone());
        tokio::spawn(async move {
            let path = if number % 5 == 0 { "/panic" } else { "/hello" };
            let status = if number % 5 == 0 { "HTTP/1.1 500" } else { "HTTP/1.1 200" };
            assert!(server.get(path).await.starts_with(status));
            served.fetch_add(1, Ordering::Relaxed);
        })
    });
    futures::future::join_all(clients).await;
    assert_eq!(served.load(Ordering::Relaxed), 50);
}
