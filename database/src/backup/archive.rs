//! A dump that lies there: read, listed, unpacked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use pointsman_core::{Code, Problem};

use super::dump::{output_of, unwritten};
use super::given::{Announcement, Given, as_stored};
use super::manifest::{Format, Manifest, damaged};
use super::name::BackupId;
use super::part::Part;
use super::stream::{self, AboveFloor, Tail};
use crate::Progress;
use crate::child::{Program, Running};
use crate::tools::Tools;

/// What unpacks the plain format.
const GZIP: &str = "/usr/bin/gzip";
/// Longest list of contents that is read.
const MAX_LIST_BYTES: u64 = 256 << 20;

/// A dump and what its manifest says of it.
#[derive(Clone, Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    pub manifest: Manifest,
}

impl Archive {
    /// The dump of a backup in the folder.
    pub(crate) fn open(folder: &Path, id: &BackupId) -> Result<Self, Problem> {
        let manifest = Manifest::read(folder, id)?;
        Ok(Self { path: folder.join(&manifest.file), manifest })
    }

    /// A dump that does not have its name yet.
    pub(crate) fn at(path: PathBuf, manifest: Manifest) -> Self {
        Self { path, manifest }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn damaged(&self, how: &str) -> Problem {
        match BackupId::parse(&self.manifest.id) {
            Ok(id) => damaged(&id, how),
            Err(problem) => problem,
        }
    }

    /// The list of contents, as `pg_restore --list` prints it, in the database's encoding. The archive must be one of the
    /// manifest's database.
    pub(crate) async fn list(&self, tools: &Tools) -> Result<Vec<String>, Problem> {
        let text = self.told(tools, &["--list"]).await?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let named = lines.iter().find_map(|line| line.strip_prefix(";     dbname: "));
        if named != Some(&as_stored(self.manifest.database.as_bytes())) {
            let found = named.unwrap_or("no database");
            return Err(Problem::new(
                Code::BackupForeign,
                format!(
                    "`{}` is a dump of `{found}`, not of `{}`",
                    self.manifest.file, self.manifest.database
                ),
            )
            .hint("`pointsman db list ENV` shows the backups that are there"));
        }
        Ok(lines)
    }

    /// The list without the entries that are given.
    ///
    /// Names in a line of the list have blanks between them, and may have blanks in them: what an entry is about is read from
    /// what `pg_restore` says of it before its statements.
    pub(crate) async fn list_without(&self, given: &Given, tools: &Tools) -> Result<Vec<String>, Problem> {
        let list = self.list(tools).await?;
        let text = self.told(tools, &["--verbose", "--schema-only", "--file=-"]).await?;
        Ok(without(list, given, &text))
    }

    /// What `pg_restore` prints of it, in the encoding of the database, without reading any rows.
    async fn told(&self, tools: &Tools, arguments: &[&str]) -> Result<String, Problem> {
        let mut program = Program::local(&tools.program("pg_restore"));
        program.command().args(arguments);
        let output = output_of(program.command(), "list a backup")?;
        let reading = tokio::task::spawn_blocking(move || {
            let mut text = Vec::new();
            let mut output = stream::buffered(output);
            output.by_ref().take(MAX_LIST_BYTES).read_to_end(&mut text)?;
            // Whoever prints more must not wait for somebody to read it.
            io::copy(&mut output, &mut io::sink()).map(|_| text)
        });
        self.feed(program, Code::BackupDamaged, &Progress::default(), "listed").await?;
        let text = reading.await.unwrap_or_else(|_| Ok(Vec::new()));
        let text = text.map_err(|error| self.damaged("its contents cannot be listed").because(&error))?;
        Ok(as_stored(&text))
    }

    /// Reads all of it: an archive through `pg_restore`, plain SQL up to its end marker. Returns its unpacked size.
    pub(crate) async fn read_all(&self, tools: &Tools, progress: &Progress) -> Result<u64, Problem> {
        match self.manifest.format {
            Format::Custom => {
                let mut program = Program::local(&tools.program("pg_restore"));
                program.command().args(["--file", "/dev/null"]);
                self.feed(program, Code::BackupDamaged, progress, "read").await
            }
            Format::SqlGz => {
                let (tail, bytes) = self.unpacked_into(Tail::default(), progress, "read").await?;
                if !tail.is_complete() {
                    return Err(self.damaged("its end is missing"));
                }
                Ok(bytes)
            }
        }
    }

    /// Unpacks it into a file that is gone with the returned guard.
    pub(crate) async fn unpack(
        &self,
        to: &Path,
        floor_bytes: u64,
        progress: &Progress,
    ) -> Result<Part, Problem> {
        // Whoever unpacks holds the guard: one that is there was left by a crash.
        Part::clear(to);
        let (part, file) = Part::begin(to).map_err(|error| unwritten("unpack a backup", &error))?;
        self.unpacked_into(AboveFloor::new(file, floor_bytes), progress, "unpacked").await?;
        Ok(part)
    }

    /// Gives all of it to a program's input. The program must end well, or the problem has this code.
    pub(crate) async fn feed(
        &self,
        program: Program,
        code: Code,
        progress: &Progress,
        doing: &'static str,
    ) -> Result<u64, Problem> {
        self.feed_through(program, code, progress, doing, |input| input).await
    }

    /// The same with something between that changes it on its way.
    pub(crate) async fn feed_through<W: Write + Send + 'static>(
        &self,
        mut program: Program,
        code: Code,
        progress: &Progress,
        doing: &'static str,
        through: impl FnOnce(io::PipeWriter) -> W,
    ) -> Result<u64, Problem> {
        let (reader, writer) =
            io::pipe().map_err(|error| self.damaged("it cannot be read").because(&error))?;
        program.command().stdin(Stdio::from(reader));
        let running = program.start()?;
        let fed = self.unpacked_into(through(writer), progress, doing).await;
        // What reads to the end of its input sees that end only when nobody can write any more.
        let fed = fed.map(|(_, bytes)| bytes);
        let ended = running.end().await?;
        // A program that fails closes its input; then what it says is the reason.
        let code = if fed.is_ok() { code } else { Code::BackupDamaged };
        ended.well(code, &format!("read backup `{}`", self.manifest.id))?;
        fed
    }

    /// Moves what is in it on a thread that may block.
    async fn unpacked_into<W: Write + Send + 'static>(
        &self,
        mut into: W,
        progress: &Progress,
        doing: &'static str,
    ) -> Result<(W, u64), Problem> {
        let (mut from, gzip) = self.source()?;
        let (progress, total) = (progress.clone(), self.manifest.raw_bytes >> 20);
        let tell = move |bytes: u64| {
            progress.say(format!("backup: {} of {total} MiB {doing}", bytes >> 20));
        };
        let moved = tokio::task::spawn_blocking(move || {
            let copied =
                stream::copy(&mut from, &mut into, tell).and_then(|bytes| into.flush().map(|()| bytes));
            match copied {
                // Whoever reads has heard enough, and answers for that.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok((into, None)),
                copied => copied.map(|bytes| (into, Some(bytes))),
            }
        });
        let moved = moved.await.unwrap_or_else(|_| Err(io::Error::other("its thread failed")));
        if let Some(gzip) = gzip {
            let ended = gzip.end().await?;
            if matches!(moved, Ok((_, Some(_)))) {
                ended.well(Code::BackupDamaged, &format!("unpack backup `{}`", self.manifest.id))?;
            }
        }
        match moved {
            Ok((into, bytes)) => Ok((into, bytes.unwrap_or(0))),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                Err(unwritten("unpack a backup", &error))
            }
            Err(error) => Err(self.damaged("it cannot be unpacked").because(&error)),
        }
    }

    fn source(&self) -> Result<(Box<dyn Read + Send>, Option<Running>), Problem> {
        let unreadable = |error: io::Error| self.damaged("it cannot be read").because(&error);
        match self.manifest.format {
            Format::Custom => {
                let from = stream::decompressing(&self.path).map_err(unreadable)?;
                Ok((Box::new(from), None))
            }
            Format::SqlGz => {
                let file = File::open(&self.path).map_err(unreadable)?;
                let mut program = Program::local(Path::new(GZIP));
                program.command().args(["--decompress", "--stdout"]).stdin(Stdio::from(file));
                let reader = output_of(program.command(), "unpack a backup")?;
                Ok((Box::new(reader), Some(program.start()?)))
            }
        }
    }
}

/// The lines of a list whose entries are not given, by what is said of each: its number, `-- TOC entry 6 (class 2615 OID 16385)`,
/// and then its names. What only looks so, in the text of a function, is in no line of the list.
fn without(list: Vec<String>, given: &Given, text: &str) -> Vec<String> {
    let mut left_out = BTreeMap::new();
    let mut number = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("-- TOC entry ") {
            number = rest.split(' ').next().and_then(|number| number.parse::<u32>().ok());
        } else if let Some(entry) = line.strip_prefix("-- Name: ").and_then(Announcement::parse)
            && let Some(number) = number.take()
            && given.extent(&entry).is_some()
        {
            left_out.insert(number, entry.listed());
        }
    }
    // `7; 0 0 ACL - SCHEMA gis site`
    let is_left_out = |line: &String| {
        let Some((number, rest)) = line.split_once("; ") else { return false };
        let entry = number.parse().ok().and_then(|number: u32| left_out.get(&number));
        entry.is_some_and(|entry| rest.splitn(3, ' ').nth(2) == Some(entry.as_str()))
    };
    list.into_iter().filter(|line| !is_left_out(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_told_by_number_and_names() {
        let given = Given {
            schemas: vec!["mein".to_owned()],
            foreign_roles: vec!["DB Admin".to_owned()],
            ..Given::default()
        };
        let list = [
            ";     dbname: shop",
            "6; 2615 16385 SCHEMA - mein o2",
            "7; 2615 16386 SCHEMA - mein Laden o2",
            "8; 0 0 ACL public TABLE pg_buffercache DB Admin",
            "9; 0 0 ACL Laden 1 TABLE q App DB Admin",
        ];
        let said = |number: u32, name: &str| {
            format!("--\n-- TOC entry {number} (class 1 OID 2)\n-- Name: {name}\n--\n\n")
        };
        let text = [
            said(6, "mein; Type: SCHEMA; Schema: -; Owner: o2"),
            said(7, "mein Laden; Type: SCHEMA; Schema: -; Owner: o2"),
            said(8, "TABLE pg_buffercache; Type: ACL; Schema: public; Owner: DB Admin"),
            said(9, "TABLE q; Type: ACL; Schema: Laden 1; Owner: App DB Admin"),
            // In the text of a function.
            said(7, "mein; Type: SCHEMA; Schema: -; Owner: o2"),
        ];
        let kept = without(list.map(str::to_owned).to_vec(), &given, &text.concat());
        assert_eq!(kept, [0, 2, 4].map(|kept| list[kept]));
    }
}
