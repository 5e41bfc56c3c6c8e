//! Puts the pages of the error codes into the program, so that `explain` works offline.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let pages = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../docs/errors");
    println!("cargo:rerun-if-changed={}", pages.display());
    let mut paths: Vec<PathBuf> =
        fs::read_dir(&pages)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    paths.sort();
    let mut table = String::from("/// Every code with its page.\nstatic PAGES: &[(&str, &str)] = &[\n");
    for path in paths {
        let code = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if code.starts_with("PM") {
            let page = fs::read_to_string(&path)?;
            writeln!(table, "    ({code:?}, {page:?}),").map_err(io::Error::other)?;
        }
    }
    table.push_str("];\n");
    fs::write(Path::new(&env::var("OUT_DIR").unwrap_or_default()).join("error_pages.rs"), table)
}
