//! Where things are: the XDG directories and what we keep below them.
//!
//! Everything returned here is absolute, because the daemon changes its working directory to `/`.

use std::path::{Path, PathBuf};

use crate::cli::Settings;
use crate::env_vars as env;
use crate::failure::Failure;

const PROGRAM: &str = "megamount";

/// The directories and files of one mount of one remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemotePaths {
    /// State of this remote: session, database, staging.
    pub(crate) state_dir: PathBuf,
    /// Cached content of this remote.
    pub(crate) cache_dir: PathBuf,
    /// The log of a daemon that has no `--log-file`.
    pub(crate) default_log: PathBuf,
}

/// Our configuration file: `given`, else `$XDG_CONFIG_HOME/megamount/config.toml`.
pub(crate) fn config_file(given: Option<&Path>) -> Result<PathBuf, Failure> {
    match given {
        Some(path) => absolute(path),
        None => Ok(base(env::XDG_CONFIG_HOME, ".config")?
            .join(PROGRAM)
            .join("config.toml")),
    }
}

/// The paths of `remote`. A validated remote name is a safe directory name.
pub(crate) fn of_remote(remote: &str, settings: &Settings) -> Result<RemotePaths, Failure> {
    let state_base = match &settings.state_dir {
        Some(dir) => absolute(dir)?,
        None => base(env::XDG_STATE_HOME, ".local/state")?.join(PROGRAM),
    };
    let cache_base = match &settings.cache_dir {
        Some(dir) => absolute(dir)?,
        None => base(env::XDG_CACHE_HOME, ".cache")?.join(PROGRAM),
    };
    let state_dir = state_base.join(remote);
    Ok(RemotePaths {
        default_log: state_dir.join("megamount.log"),
        state_dir,
        cache_dir: cache_base.join(remote),
    })
}

/// Where rclone's configuration may be, in rclone's own order (`rclone config file`).
pub(crate) fn rclone_candidates() -> Vec<PathBuf> {
    if let Some(value) = env::raw(env::RCLONE_CONFIG) {
        // An empty value means that rclone keeps its configuration in memory only.
        return if value.is_empty() {
            vec![]
        } else {
            vec![PathBuf::from(value)]
        };
    }
    let mut candidates = vec![];
    if let Some(dir) = env::path(env::RCLONE_CONFIG_DIR) {
        candidates.push(dir.join("rclone.conf"));
    }
    if let Some(dir) = env::path(env::XDG_CONFIG_HOME) {
        candidates.push(dir.join("rclone/rclone.conf"));
    }
    if let Some(home) = env::home() {
        candidates.push(home.join(".config/rclone/rclone.conf"));
        candidates.push(home.join(".rclone.conf"));
    }
    candidates
}

/// An XDG base directory; relative values are invalid by the specification and ignored.
fn base(variable: &str, below_home: &str) -> Result<PathBuf, Failure> {
    if let Some(path) = env::path(variable).filter(|path| path.is_absolute()) {
        return Ok(path);
    }
    Ok(env::home().ok_or(Failure::NoHome)?.join(below_home))
}

/// `path` from the root, without looking at the disk; a leading `~/` is the home directory, for
/// values from the configuration file, which no shell expands.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let path = match path.strip_prefix("~") {
        Ok(rest) => env::home().ok_or(Failure::NoHome)?.join(rest),
        Err(_) => path.to_path_buf(),
    };
    std::path::absolute(&path).map_err(|e| {
        Failure::Usage(format!(
            "the path '{}' cannot be used: {e}.",
            path.display()
        ))
    })
}

/// `path` with the symbolic links of its existing part resolved: what two paths are compared by.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            let rest = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
            return if rest.as_os_str().is_empty() {
                real
            } else {
                real.join(rest)
            };
        }
    }
    path.to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::MountOptions;

    #[test]
    fn each_remote_has_its_own_directory() {
        let options = MountOptions {
            state_dir: Some("/s".into()),
            cache_dir: Some("/c".into()),
            ..MountOptions::default()
        };
        let paths = of_remote("my remote", &options.resolve()).unwrap();
        assert_eq!(paths.state_dir, Path::new("/s/my remote"));
        assert_eq!(paths.cache_dir, Path::new("/c/my remote"));
        assert_eq!(paths.default_log, Path::new("/s/my remote/megamount.log"));
    }

    #[test]
    fn links_are_resolved_as_far_as_they_exist() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        assert_eq!(
            resolved(&dir.path().join("link/new/file")),
            real.join("new/file")
        );
        assert_eq!(resolved(&dir.path().join("link")), real);
    }
}
