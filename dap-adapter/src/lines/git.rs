//! The local clone, asked through the `git` command: what a file was at a commit.
//!
//! Every call has a deadline, reads at most [`OUTPUT_BYTES_MAX`], never asks for a password and never runs a pager. It
//! only reads, and takes no locks.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// How long one call may take: a cold disk and a large repository included. A person waits for it.
const DEADLINE: Duration = Duration::from_secs(5);
/// Largest output that is read: no source file is larger.
const OUTPUT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Why git did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum GitError {
    /// There is no `git`, or it cannot be started.
    #[error("git cannot be run: {0}")]
    NoGit(String),
    /// It took too long.
    #[error("git took longer than {} s", DEADLINE.as_secs())]
    Deadline,
    /// It wrote more than a source file has.
    #[error("git wrote more than {OUTPUT_BYTES_MAX} bytes")]
    TooLarge,
    /// It said no.
    #[error("git: {0}")]
    Refused(String),
}

/// A repository's working tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Repository {
    root: PathBuf,
}

impl Repository {
    /// The repository that holds `folder`; `None` when none does.
    pub(super) async fn find(folder: &Path) -> Result<Option<Repository>, GitError> {
        match run(folder, &["rev-parse", "--show-toplevel"]).await {
            Ok(output) => {
                let root = PathBuf::from(String::from_utf8_lossy(&output).trim_end_matches('\n'));
                Ok(root.is_absolute().then_some(Repository { root }))
            }
            Err(GitError::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The commit that is checked out; `None` before the first one.
    pub(super) async fn head(&self) -> Result<Option<String>, GitError> {
        self.resolve("HEAD").await
    }

    /// The full id of a commit; `None` when the clone does not have it.
    pub(super) async fn resolve(&self, revision: &str) -> Result<Option<String>, GitError> {
        let commit = format!("{revision}^{{commit}}");
        match run(&self.root, &["rev-parse", "--verify", "--quiet", "--end-of-options", &commit]).await {
            Ok(output) => Ok(Some(String::from_utf8_lossy(&output).trim().to_owned())),
            Err(GitError::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A file at a commit that the clone has; `None` when the commit does not have the file.
    pub(super) async fn show(&self, commit: &str, path: &str) -> Result<Option<String>, GitError> {
        match run(&self.root, &["show", "--end-of-options", &format!("{commit}:{path}")]).await {
            Ok(output) => Ok(Some(String::from_utf8_lossy(&output).into_owned())),
            Err(GitError::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a file of the working tree was called at a commit, where git sees that it was renamed since.
    pub(super) async fn old_name(&self, commit: &str, path: &str) -> Result<Option<String>, GitError> {
        let arguments =
            ["diff", "--find-renames", "--diff-filter=R", "--name-status", "-z", "--end-of-options", commit];
        let output = match run(&self.root, &arguments).await {
            Ok(output) => String::from_utf8_lossy(&output).into_owned(),
            Err(GitError::Refused(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        // Records of status, old name, new name, each ended by NUL.
        let fields: Vec<&str> = output.split('\0').collect();
        Ok(fields.chunks_exact(3).find(|record| record[2] == path).map(|record| record[1].to_owned()))
    }
}

async fn run(folder: &Path, arguments: &[&str]) -> Result<Vec<u8>, GitError> {
    let mut child = tokio::process::Command::new("git")
        .args(["--no-pager", "-c", "core.quotePath=false"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("LC_ALL", "C")
        // A hook's environment would point git at another repository.
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| GitError::NoGit(e.to_string()))?;
    let io = |e: std::io::Error| GitError::NoGit(e.to_string());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let answer = async {
        let (mut output, mut complaint) = (Vec::new(), Vec::new());
        let read_output = async {
            match out {
                Some(out) => out.take(OUTPUT_BYTES_MAX + 1).read_to_end(&mut output).await,
                None => Ok(0),
            }
        };
        let read_complaint = async {
            match err {
                Some(err) => err.take(4096).read_to_end(&mut complaint).await,
                None => Ok(0),
            }
        };
        let (read, complained) = tokio::join!(read_output, read_complaint);
        read.and(complained).map_err(io)?;
        if output.len() as u64 > OUTPUT_BYTES_MAX {
            return Err(GitError::TooLarge);
        }
        let status = child.wait().await.map_err(io)?;
        if status.success() {
            return Ok(output);
        }
        let complaint = String::from_utf8_lossy(&complaint);
        Err(GitError::Refused(complaint.lines().next().unwrap_or("it failed without a word").to_owned()))
    };
    tokio::time::timeout(DEADLINE, answer).await.unwrap_or(Err(GitError::Deadline))
}
