//! What a server answers, byte by byte.

use super::*;

fn request(hash: BlobHash, size: u64, from: u64, to: u64) -> Request {
    Request { space: space(), epoch: EpochId::of(b"epoch"), hash, size, from, to, shown: Vec::new() }
}

fn serve(server: &Server, peer: HostKey) -> DuplexStream {
    let (here, there) = tokio::io::duplex(64 * 1024);
    let server = server.clone();
    tokio::spawn(async move { server.serve_stream(there, peer).await });
    here
}

async fn send(stream: &mut DuplexStream, request: &[u8]) -> u8 {
    stream.write_u32(u32::try_from(request.len()).expect("short")).await.expect("sent");
    stream.write_all(request).await.expect("sent");
    stream.read_u8().await.expect("a status")
}

async fn ask(server: &Server, request: &Request) -> u8 {
    send(&mut serve(server, ASKING), &request.encode()).await
}

#[tokio::test]
async fn a_range_follows_its_status_and_then_the_next_request() {
    let source = Folder::new();
    let bytes = content(1, 100_000);
    let hash = source.put(&bytes).await;
    let mut stream = serve(&source.server(), ASKING);
    for groups in [0..7, 2..3, 6..7] {
        let range = tree::bytes_of(100_000, &groups);
        let status = send(&mut stream, &request(hash, 100_000, range.start, range.end).encode()).await;
        assert_eq!(status, Status::Follows.byte());
        let mut encoded = vec![0; tree::encoded_bytes(100_000, &groups)];
        stream.read_exact(&mut encoded).await.expect("the range");
        let decoded = tree::decode(&hash, 100_000, &groups, &encoded);
        assert!(!decoded.is_bad && decoded.bytes == bytes[range.start as usize..range.end as usize]);
    }
    stream.shutdown().await.expect("done");
    assert_eq!(stream.read(&mut [0]).await.expect("the end"), 0, "nothing else comes");
}

#[tokio::test]
async fn what_is_not_here_and_what_is_not_allowed_look_the_same() {
    let source = Folder::new();
    let hash = source.put(b"value").await;
    let mut held = source.held();
    held.readers.insert(host(1));
    let server = Server::new(Arc::new(held), LONG);
    assert_eq!(ask(&server, &request(hash, 5, 0, 5)).await, Status::NotFound.byte(), "not a reader");
    let server = source.server();
    assert_eq!(ask(&server, &request(hash, 5, 0, 5)).await, Status::Follows.byte());
    assert_eq!(ask(&server, &request(BlobHash::of(b"absent"), 5, 0, 5)).await, Status::NotFound.byte());
    assert_eq!(ask(&server, &request(hash, 6, 0, 6)).await, Status::NotFound.byte(), "another size");
    let other = SpaceId::new(&Did::from_ed25519(&[7; 32]), "other").expect("a space id");
    let elsewhere = Request { space: other, ..request(hash, 5, 0, 5) };
    assert_eq!(ask(&server, &elsewhere).await, Status::NotFound.byte(), "a hash is no capability");
}

#[tokio::test]
async fn what_makes_no_sense_is_told_so_and_ends_the_stream() {
    let server = Folder::new().server();
    let mut stream = serve(&server, ASKING);
    assert_eq!(send(&mut stream, b"no request").await, Status::Malformed.byte());
    assert_eq!(stream.read(&mut [0]).await.expect("the end"), 0);
    let mut stream = serve(&server, ASKING);
    stream.write_u32(u32::MAX).await.expect("sent");
    assert_eq!(stream.read_u8().await.expect("a status"), Status::Malformed.byte(), "too long");
    assert_eq!(stream.read(&mut [0]).await.expect("the end"), 0);
}

#[tokio::test]
async fn a_rotten_file_is_not_found_and_a_new_one_of_its_name_is() {
    let source = Folder::new();
    let bytes = content(1, 3 * MIB);
    let hash = source.put(&bytes).await;
    let path = crate::blobs::file_of(source.dir.path(), &hash);
    let held = source.held();
    let told = Arc::clone(&held.rotten);
    let server = Server::new(Arc::new(held), LONG);
    let whole = request(hash, bytes.len() as u64, 0, bytes.len() as u64);
    let mut rotten = bytes.to_vec();
    rotten[2 * MIB] ^= 1;
    std::fs::write(&path, &rotten).expect("written");
    for _ in 0..2 {
        assert_eq!(ask(&server, &whole).await, Status::NotFound.byte());
    }
    assert_eq!(told.load(Ordering::SeqCst), 2, "whoever can replace it hears of it");
    source.put(&bytes).await;
    assert_eq!(ask(&server, &whole).await, Status::Follows.byte());
    // It rots after its tree was made: the range in which it did breaks off, and then it is not found.
    std::fs::write(&path, &rotten).expect("written");
    let groups = 128..192;
    let late = request(hash, bytes.len() as u64, 2 * MIB as u64, 3 * MIB as u64);
    let mut stream = serve(&server, ASKING);
    let status = send(&mut stream, &late.encode()).await;
    let mut encoded = Vec::new();
    if status == Status::Follows.byte() {
        stream.read_to_end(&mut encoded).await.expect("read");
    }
    let decoded = tree::decode(&hash, bytes.len() as u64, &groups, &encoded);
    assert!(!decoded.is_bad && decoded.groups < 64, "what is rotten is never sent");
    for _ in 0..2 {
        assert_eq!(ask(&server, &whole).await, Status::NotFound.byte());
    }
}

#[tokio::test]
async fn a_peer_has_four_streams_and_a_node_sixty_four() {
    let source = Folder::new();
    let hash = source.put(b"value").await;
    let server = source.server();
    let asked = request(hash, 5, 0, 5).encode();
    let mut open = Vec::new();
    for number in 0..16 {
        for _ in 0..4 {
            let mut stream = serve(&server, host(number));
            assert_eq!(send(&mut stream, &asked).await, Status::Follows.byte());
            open.push(stream);
        }
        assert_eq!(serve(&server, host(number)).read_u8().await.expect("a status"), Status::Busy.byte());
    }
    assert_eq!(serve(&server, host(99)).read_u8().await.expect("a status"), Status::Busy.byte());
    let mut closed = open.pop().expect("a stream");
    closed.shutdown().await.expect("closed");
    closed.read_to_end(&mut Vec::new()).await.expect("closed");
    while server.shared.streams().values().sum::<usize>() == 64 {
        tokio::task::yield_now().await;
    }
    assert_eq!(send(&mut serve(&server, host(99)), &asked).await, Status::Follows.byte(), "there is room again");
}

#[tokio::test]
async fn a_peer_that_waits_too_long_loses_its_stream() {
    let source = Folder::new();
    let bytes = content(1, MIB);
    let hash = source.put(&bytes).await;
    let server = Server::new(Arc::new(source.held()), Duration::from_millis(20));
    let mut silent = serve(&server, ASKING);
    assert_eq!(silent.read(&mut [0]).await.expect("the end"), 0);
    let mut greedy = serve(&server, ASKING);
    let status = send(&mut greedy, &request(hash, MIB as u64, 0, MIB as u64).encode()).await;
    assert_eq!(status, Status::Follows.byte());
    while !server.shared.streams().is_empty() {
        tokio::task::yield_now().await;
    }
    let mut read = Vec::new();
    greedy.read_to_end(&mut read).await.expect("the end");
    assert!(read.len() < MIB, "it never took the rest");
}
