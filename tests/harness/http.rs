//! HTTP/1.1 by hand, so that a request can be as wrong as a test wants it.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
};

use super::process::DEADLINE;

/// A request, byte by byte what is sent.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// What is said of the length of the body, if that is not the truth.
    length: Option<u64>,
    chunked: bool,
}

/// `POST`, which nearly everything is.
pub(crate) fn post(path: &str) -> Request {
    Request::new("POST", path)
}

/// `GET`.
pub(crate) fn get(path: &str) -> Request {
    Request::new("GET", path)
}

impl Request {
    pub(crate) fn new(method: &str, path: &str) -> Self {
        let (method, path) = (method.to_owned(), path.to_owned());
        Self { method, path, headers: Vec::new(), body: Vec::new(), length: None, chunked: false }
    }

    pub(crate) fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// The token, as clients send it.
    pub(crate) fn token(self, token: impl ToString) -> Self {
        self.header("Authorization", token)
    }

    pub(crate) fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// Announces a body of this length, to be sent by hand.
    pub(crate) fn announcing(self, length: u64) -> Self {
        Self { length: Some(length), ..self }
    }

    /// Sends the body in chunks, its length unsaid.
    pub(crate) fn chunked(self) -> Self {
        Self { chunked: true, ..self }
    }

    /// The head, with the length of the body unless that is chunked.
    pub(crate) fn head(&self) -> Vec<u8> {
        let Self { method, path, headers, body, length, chunked } = self;
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: node\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &match chunked {
            true => "transfer-encoding: chunked\r\n\r\n".to_owned(),
            false => format!("content-length: {}\r\n\r\n", length.unwrap_or(body.len() as u64)),
        };
        head.into_bytes()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head();
        if self.chunked {
            for chunk in self.body.chunks(64 * 1024) {
                bytes.extend(chunk_of(chunk));
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

/// A chunk of a chunked body.
pub(crate) fn chunk_of(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// An answer.
#[derive(Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        for (name, value) in &self.headers {
            write!(f, " {name}: {}", String::from_utf8_lossy(value))?;
        }
        write!(f, " {:?}", String::from_utf8_lossy(&self.body[..self.body.len().min(500)]))
    }
}

impl Response {
    /// A header; the test fails when it stands there twice or is no text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let (first, second) = (found.next(), found.next());
        assert!(second.is_none(), "{name} stands there twice: {self:?}");
        first.map(|(_, value)| std::str::from_utf8(value).expect("headers are text"))
    }

    pub(crate) fn etag(&self) -> Option<&str> {
        self.header("etag")
    }

    /// The node's code of a refusal.
    pub(crate) fn code(&self) -> Option<&str> {
        self.header("x-kvspace-error")
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("it is text")
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The keys of a list.
    pub(crate) fn keys(&self) -> Vec<String> {
        assert_eq!(self.status, 200, "{self:?}");
        serde_json::from_slice(&self.body).expect("a list of keys")
    }

    /// Fails the test unless this is the status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// A connection that is kept as long as both sides want it.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: &str) -> Self {
        Self::try_open(address).expect("the node listens")
    }

    pub(crate) fn try_open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Sends a request and reads the answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: &Request) -> Response {
        self.try_ask(request).expect("an answer")
    }

    pub(crate) fn try_ask(&mut self, request: &Request) -> io::Result<Response> {
        self.stream.write_all(&request.bytes())?;
        self.answer_to(&request.method)
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the node takes bytes");
    }

    /// The same, where the node may have closed the connection.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more comes.
    pub(crate) fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("it was open");
    }

    /// Reads an answer; an error when the connection ends before it does.
    pub(crate) fn answer(&mut self) -> io::Result<Response> {
        self.answer_to("POST")
    }

    /// Fails the test unless the node closes the connection without another byte.
    pub(crate) fn is_closed(&mut self) {
        match self.fill() {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            other => panic!("the node did not close the connection: {other:?} {:?}", self.buffer),
        }
    }

    fn answer_to(&mut self, method: &str) -> io::Result<Response> {
        let head = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            self.fill()?;
        };
        let mut response = parse(&self.buffer[..head]);
        self.buffer.drain(..head);
        if method == "HEAD" || matches!(response.status, 204 | 304) {
            return Ok(response);
        }
        let length = response.header("content-length").map(|length| length.parse().expect("a length"));
        response.body = match length {
            Some(length) => self.take(length)?,
            None if response.header("transfer-encoding") == Some("chunked") => self.chunks()?,
            None => self.rest()?,
        };
        Ok(response)
    }

    /// Reads the head of an answer and then its body without keeping it; the length and hash of the body.
    pub(crate) fn digest(&mut self) -> (Response, u64, blake3::Hash) {
        let head = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            self.fill().expect("the head of an answer");
        };
        let response = parse(&self.buffer[..head]);
        self.buffer.drain(..head);
        let length: u64 = response.header("content-length").expect("a length").parse().expect("a length");
        let (mut hasher, mut left) = (blake3::Hasher::new(), length);
        let mut buffer = vec![0; 256 * 1024];
        hasher.update(&self.buffer);
        left -= self.buffer.len() as u64;
        self.buffer.clear();
        while left > 0 {
            let read = self.stream.read(&mut buffer).expect("the rest of the body");
            assert!(read > 0, "the body ends {left} bytes early");
            hasher.update(&buffer[..read]);
            left -= read as u64;
        }
        (response, length, hasher.finalize())
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let at = loop {
                match find(&self.buffer, b"\r\n") {
                    Some(at) => break at,
                    None => self.fill()?,
                }
            };
            let size = chunk_size(&self.buffer[..at]);
            self.buffer.drain(..at + 2);
            let mut chunk = self.take(size + 2)?;
            if size == 0 {
                return Ok(body);
            }
            chunk.truncate(size);
            body.extend(chunk);
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn rest(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(std::mem::take(&mut self.buffer));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut piece = [0; 64 * 1024];
        match self.stream.read(&mut piece)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.buffer.extend_from_slice(&piece[..read]);
                Ok(())
            }
        }
    }
}

fn chunk_size(line: &[u8]) -> usize {
    let line = std::str::from_utf8(line).expect("a size is text");
    usize::from_str_radix(line, 16).expect("a size is hex")
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn parse(head: &[u8]) -> Response {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = String::from_utf8_lossy(lines.next().expect("a first line"));
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status: {first}"));
    let headers = lines.filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b':')?;
        Some((String::from_utf8_lossy(&line[..at]).into_owned(), line[at + 1..].trim_ascii().to_vec()))
    });
    Response { status, headers: headers.collect(), body: Vec::new() }
}
