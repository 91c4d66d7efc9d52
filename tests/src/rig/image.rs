//! A disk of its own: an ext4 filesystem on a loop file, whose power can be cut, filled, and mounted again.

use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Mounted until dropped.
#[derive(Debug)]
pub struct Image {
    file: PathBuf,
    mount: PathBuf,
    mounted: bool,
}

fn run(command: &mut Command) -> Result<()> {
    let out = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim());
    Ok(())
}

/// The power of the filesystem at `mount` goes: from now on nothing reaches its device, and what ext4 had not committed is
/// gone.
pub fn cut(mount: &Path) -> Result<()> {
    let root = std::fs::File::open(mount)?;
    super::sys::power_cut(&root).context("EXT4_IOC_SHUTDOWN")
}

impl Image {
    /// Makes and mounts `folder/image` of `mib` MiB at `folder/disk`.
    pub fn make(folder: &Path, mib: u64) -> Result<Image> {
        let (file, mount) = (folder.join("image"), folder.join("disk"));
        std::fs::create_dir_all(&mount)?;
        std::fs::File::create(&file)?.set_len(mib << 20)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&file))?;
        let mut image = Image { file, mount, mounted: false };
        image.mount()?;
        Ok(image)
    }

    /// Why this machine cannot, if it cannot: no root, no loop devices, no ext4, no shutdown call.
    pub fn probe() -> Result<()> {
        let work = super::Work::new("probe");
        let mut image = Image::make(work.path(), 16)?;
        let probe = image.path().join("probe");
        std::fs::write(&probe, b"not synced").context("writing on the image")?;
        image.cut()?;
        image.unmount()?;
        image.mount()?;
        ensure!(std::fs::read(&probe).unwrap_or_default().is_empty(), "what was never synced survived the cut");
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.mount
    }

    pub fn mount(&mut self) -> Result<()> {
        ensure!(!self.mounted, "already mounted");
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.file).arg(&self.mount))?;
        self.mounted = true;
        Ok(())
    }

    /// Nobody may have a file open. A process that was just killed may need a moment to let go.
    pub fn unmount(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match run(Command::new("umount").arg(&self.mount)) {
                Ok(()) => {
                    self.mounted = false;
                    return Ok(());
                }
                Err(e) if Instant::now() > deadline => return Err(e),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// [`cut`] of its mount.
    pub fn cut(&self) -> Result<()> {
        cut(&self.mount)
    }

    /// Fills it until nothing more fits; the file that holds the space is `filler` below the mount.
    pub fn fill(&self) -> Result<()> {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(self.filler())?;
        for size in [1 << 20, 4096, 512] {
            let piece = vec![0xa5u8; size];
            loop {
                match file.write(&piece) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(e) if e.kind() == std::io::ErrorKind::StorageFull => break,
                    Err(e) => bail!("filling the image: {e}"),
                }
            }
        }
        // Delayed allocation would else find the space missing only later.
        let _ = file.sync_all();
        Ok(())
    }

    pub fn filler(&self) -> PathBuf {
        self.mount.join("filler")
    }

    /// Gives the space back.
    pub fn drain(&self) -> Result<()> {
        std::fs::remove_file(self.filler()).context("removing the filler")
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            let _ = Command::new("umount").arg("-l").arg(&self.mount).status();
        }
    }
}
