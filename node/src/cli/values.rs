//! `put`, `get`, `head`, `ls` and `rm`.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    pin::pin,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use futures::TryStreamExt as _;
use kvspace_client::{Condition, Error, Head, KeyPath, LIST_LIMIT_MAX, Meta, Space, SpaceId, Written};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    error::CliError,
    output::Output,
    target::{AfterArg, KeyArg, SpaceTarget, read_key},
    transfer::ProgressLine,
};

/// What comes from a pipe is held in memory up to this size, and in a temporary file beyond it.
const PIPED_IN_MEMORY_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  kvspace put notes docs/plan.txt plan.txt --content-type text/plain\n  echo hello | kvspace put notes greeting --if-absent"
)]
pub(crate) struct PutArgs {
    #[command(flatten)]
    space: SpaceTarget,
    #[command(flatten)]
    key: KeyArg,
    /// The file that holds the value; `-` is standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Media type, stored with the value
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// A header of your own, stored as x-tinycloud-meta-NAME; may be given again
    #[arg(long, value_name = "NAME=TEXT", value_parser = pair)]
    meta: Vec<(String, String)>,
    /// Only if there is no value yet
    #[arg(long, conflicts_with = "if_match")]
    if_absent: bool,
    /// Only if the value that is there has this entity tag
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kvspace get notes docs/plan.txt -o plan.txt")]
pub(crate) struct GetArgs {
    #[command(flatten)]
    space: SpaceTarget,
    #[command(flatten)]
    key: KeyArg,
    #[command(flatten)]
    after: AfterArg,
    /// Writes the value to this file, when all of it is there and its hash is right
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kvspace head notes docs/plan.txt")]
pub(crate) struct HeadArgs {
    #[command(flatten)]
    space: SpaceTarget,
    #[command(flatten)]
    key: KeyArg,
    #[command(flatten)]
    after: AfterArg,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kvspace ls notes docs --limit 100")]
pub(crate) struct LsArgs {
    #[command(flatten)]
    space: SpaceTarget,
    #[command(flatten)]
    after: AfterArg,
    /// Lists this key and what lies beneath it at a `/`; all keys without it
    prefix: Option<String>,
    /// Keys are percent-encoded, as they stand in a URI, and written so
    #[arg(long)]
    encoded: bool,
    /// At most so many keys, and a cursor for the rest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(LIST_LIMIT_MAX)))]
    limit: Option<u16>,
    /// Goes on where a list ended; with the same limit
    #[arg(long)]
    cursor: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kvspace rm notes docs/plan.txt")]
pub(crate) struct RmArgs {
    #[command(flatten)]
    space: SpaceTarget,
    #[command(flatten)]
    key: KeyArg,
    /// Only if the value that is there has this entity tag
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
}

/// The key for a line of a list. One that would break the line stays encoded.
fn shown(key: &KeyPath, encoded: bool) -> Cow<'_, str> {
    let text = key.text();
    if encoded || text.chars().any(char::is_control) { Cow::Borrowed(key.as_str()) } else { text }
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or("write NAME=TEXT")
}

impl PutArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let (key, meta, condition) = (self.key.path()?, self.meta()?, self.condition());
        let space = self.space.open().await?;
        let (_line, progress) = ProgressLine::start();
        let written = match piped(&self.file).await? {
            Source::File(file) => space.put_from(&key, file, meta, condition, progress).await?,
            Source::Bytes(bytes) => space.put(&key, bytes, meta, condition).await?,
        };
        drop(_line);
        show_written(out, "stored", &space, &key, &written)
    }

    fn meta(&self) -> Result<Meta, CliError> {
        let mut meta = Meta::new();
        if let Some(media_type) = &self.content_type {
            meta = meta.with_content_type(media_type)?;
        }
        for (name, value) in &self.meta {
            meta = meta.with_own(name, value)?;
        }
        Ok(meta)
    }

    fn condition(&self) -> Condition {
        if self.if_absent { Condition::IfAbsent } else { if_match(self.if_match.as_deref()) }
    }
}

fn if_match(etag: Option<&str>) -> Condition {
    etag.map_or(Condition::Always, |etag| Condition::IfMatch(etag.to_owned()))
}

enum Source {
    /// Can be read twice.
    File(tokio::fs::File),
    /// Was read once and is small.
    Bytes(Vec<u8>),
}

/// A value to be stored. A file is taken as it is; what can be read only once is held in memory, or spooled to a
/// temporary file that has no name.
async fn piped(path: &Path) -> Result<Source, CliError> {
    if path.as_os_str() == "-" {
        return spooled(tokio::io::stdin()).await;
    }
    let opened = async {
        let file = tokio::fs::File::open(path).await?;
        let kind = file.metadata().await?;
        Ok((file, kind))
    };
    let (file, kind) = opened.await.map_err(|error: std::io::Error| CliError::file("read", path, &error))?;
    if kind.is_file() { Ok(Source::File(file)) } else { spooled(file).await }
}

async fn spooled(mut reader: impl tokio::io::AsyncRead + Unpin) -> Result<Source, CliError> {
    let mut bytes = Vec::new();
    let first = PIPED_IN_MEMORY_BYTES as u64 + 1;
    (&mut reader).take(first).read_to_end(&mut bytes).await?;
    if bytes.len() <= PIPED_IN_MEMORY_BYTES {
        return Ok(Source::Bytes(bytes));
    }
    let mut file = tokio::fs::File::from_std(tempfile::tempfile()?);
    file.write_all(&bytes).await?;
    drop(bytes);
    tokio::io::copy(&mut reader, &mut file).await?;
    file.flush().await?;
    Ok(Source::File(file))
}

fn show_written(out: &Output, did: &str, space: &Space, key: &KeyPath, written: &Written) -> Result<(), CliError> {
    let object = json!({
        "space": space.id(), "key": key.text(), "path": key.as_str(), "etag": written.etag,
        "version": written.version, "frontier": written.frontier,
    });
    let etag = written.etag.as_deref().map_or_else(String::new, |etag| format!("\t{etag}"));
    out.result(&format!("{did}\t{}{etag}\n", shown(key, false)), &object)
}

impl GetArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let key = self.key.path()?;
        let space = self.after.open(&self.space).await?;
        let (line, progress) = ProgressLine::start();
        match &self.output {
            Some(path) => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let failed = |error: &std::io::Error| CliError::file("write", path, error);
                // Beside its place, so that the file appears whole and in one step.
                let file = NamedTempFile::new_in(folder).map_err(|error| failed(&error))?;
                let mut writer = tokio::fs::File::from_std(file.reopen()?);
                let head = space.get_to(&key, &mut writer, progress).await?;
                writer.sync_all().await.map_err(|error| failed(&error))?;
                readable(file.path()).map_err(|error| failed(&error))?;
                file.persist(path).map_err(|error| failed(&error.error))?;
                drop(line);
                let mut object = describe(&space, &key, &head);
                object["file"] = path.display().to_string().into();
                out.result("", &object)
            }
            None if out.is_json() => {
                let value = space.get(&key).await?;
                let mut object = describe(&space, &key, &value.head);
                match std::str::from_utf8(&value.bytes) {
                    Ok(text) => object["text"] = text.into(),
                    Err(_) => object["base64"] = STANDARD.encode(&value.bytes).into(),
                }
                object["size"] = value.bytes.len().into();
                out.result("", &object)
            }
            None => {
                match space.get_to(&key, &mut out.bytes(), progress).await {
                    // Whoever reads has seen enough.
                    Err(Error::Local(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                    result => Ok(result.map(drop)?),
                }
            }
        }
    }
}

/// A temporary file is for its owner alone; what was asked for is an ordinary file.
#[cfg(unix)]
fn readable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

impl HeadArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let key = self.key.path()?;
        let space = self.after.open(&self.space).await?;
        let head = space.head(&key).await?;
        let facts = [
            ("etag", head.etag.clone()),
            ("size", head.size.map(|size| size.to_string())),
            ("version", head.version.clone()),
            ("integrity", head.integrity.map(|integrity| integrity.to_string())),
        ];
        let own = facts.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
        let lines: String = own.chain(head.meta.iter()).map(|(name, value)| format!("{name}\t{value}\n")).collect();
        out.result(&lines, &describe(&space, &key, &head))
    }
}

fn describe(space: &Space, key: &KeyPath, head: &Head) -> Value {
    json!({
        "space": space.id(), "key": key.text(), "path": key.as_str(), "etag": head.etag, "size": head.size,
        "version": head.version, "integrity": head.integrity.map(|integrity| integrity.to_string()),
        "meta": head.meta.as_map(),
    })
}

impl LsArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let prefix = self.prefix.as_deref().map(|prefix| read_key(prefix, self.encoded)).transpose()?;
        let space = self.after.open(&self.space).await?;
        let mut list = List { out, space: space.id().clone(), encoded: self.encoded, count: 0 };
        if self.limit.is_none() && self.cursor.is_none() {
            let mut keys = pin!(space.list_all(prefix));
            while let Some(key) = keys.try_next().await? {
                list.key(&key)?;
            }
            return list.end(None);
        }
        let limit = self.limit.unwrap_or(LIST_LIMIT_MAX);
        let page = space.list(prefix.as_ref(), limit, self.cursor.as_deref()).await?;
        page.keys.iter().try_for_each(|key| list.key(key))?;
        list.end(page.cursor.as_deref())
    }
}

/// A list is written as it comes, so that its length costs no memory; nothing before the first of it has come, so that
/// an error stands alone.
struct List<'a> {
    out: &'a Output,
    space: SpaceId,
    encoded: bool,
    count: u64,
}

impl List<'_> {
    fn key(&mut self, key: &KeyPath) -> Result<(), CliError> {
        let before = if self.count == 0 { self.beginning() } else { ",".into() };
        self.count += 1;
        if self.out.is_json() {
            let text = if self.encoded { Cow::Borrowed(key.as_str()) } else { key.text() };
            return self.out.raw(&format!("{before}{}", json!(text)));
        }
        self.out.raw(&format!("{}\n", shown(key, self.encoded)))
    }

    fn beginning(&self) -> String {
        format!("{{\"space\":{},\"keys\":[", json!(self.space))
    }

    fn end(&self, cursor: Option<&str>) -> Result<(), CliError> {
        if self.out.is_json() {
            let before = if self.count == 0 { self.beginning() } else { String::new() };
            return self.out.raw(&format!("{before}],\"cursor\":{}}}\n", json!(cursor)));
        }
        if let Some(cursor) = cursor {
            self.out.note(&format!("there are more: --cursor {cursor}"));
        }
        Ok(())
    }
}

impl RmArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let key = self.key.path()?;
        let space = self.space.open().await?;
        let written = space.delete(&key, if_match(self.if_match.as_deref())).await?;
        show_written(out, "deleted", &space, &key, &written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_would_break_a_line_stays_encoded() {
        let key = KeyPath::from_text("a\nb").expect("a key");
        assert_eq!(shown(&key, false), "a%0Ab");
        let key = KeyPath::from_text("a b").expect("a key");
        assert_eq!((shown(&key, false).as_ref(), shown(&key, true).as_ref()), ("a b", "a%20b"));
        assert_eq!(read_key("a%20b", true).expect("a key"), key);
    }

    #[tokio::test]
    async fn what_is_piped_is_kept_small_or_spooled() {
        let small = spooled(&b"small"[..]).await.expect("read");
        assert!(matches!(small, Source::Bytes(bytes) if bytes == b"small"));
        let large = vec![1u8; PIPED_IN_MEMORY_BYTES + 1];
        let Source::File(file) = spooled(&large[..]).await.expect("read") else { panic!("it is large") };
        assert_eq!(file.metadata().await.expect("a file").len(), large.len() as u64);
    }
}
