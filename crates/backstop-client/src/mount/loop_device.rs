//! Loop devices: block devices whose content is a file. Only root may assign them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::{Path, PathBuf};

use linux_raw_sys::loop_device::{
    LO_FLAGS_PARTSCAN, LO_FLAGS_READ_ONLY, LOOP_CLR_FD, LOOP_CONFIGURE, LOOP_CTL_GET_FREE,
    loop_config, loop_info64,
};
use rustix::io::Errno;
use rustix::ioctl::{self, Ioctl, IoctlOutput, NoArg, Opcode, Setter};

const CONTROL: &str = "/dev/loop-control";
/// How often another free device is taken after somebody else was faster.
const ATTEMPTS: usize = 16;

/// A device `/dev/loopN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopDevice(u32);

/// Asks for the number of a device that is free.
struct GetFree;

// SAFETY: the call takes no argument and returns a number; it touches no memory of this process.
unsafe impl Ioctl for GetFree {
    type Output = u32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        LOOP_CTL_GET_FREE
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut std::ffi::c_void) -> Result<u32, Errno> {
        u32::try_from(out).map_err(|_| Errno::RANGE)
    }
}

impl LoopDevice {
    /// The device of this number.
    pub fn number(number: u32) -> Self {
        Self(number)
    }

    /// The device of this path, which is `/dev/loopN`.
    pub fn at(path: &str) -> Option<Self> {
        let number = path.strip_prefix("/dev/loop")?;
        number.parse().ok().map(Self)
    }

    /// Its path.
    pub fn path(self) -> PathBuf {
        format!("/dev/loop{}", self.0).into()
    }

    /// Makes a free device show this file, read-only and with its partitions.
    ///
    /// # Errors
    /// There are no loop devices here, or they are not for this user.
    pub fn assign(backing: &File) -> io::Result<Self> {
        let control = File::options().read(true).write(true).open(CONTROL)?;
        let mut attempt = 0;
        loop {
            // SAFETY: the descriptor is that of the control device, whose call this is.
            let device = Self(unsafe { ioctl::ioctl(&control, GetFree) }?);
            match device.configure(backing) {
                Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                    attempt += 1;
                    if attempt == ATTEMPTS {
                        return Err(error);
                    }
                }
                other => return other.map(|()| device),
            }
        }
    }

    fn configure(self, backing: &File) -> io::Result<()> {
        let device = File::open(self.path())?;
        let config = loop_config {
            fd: u32::try_from(backing.as_fd().as_raw_fd()).map_err(io::Error::other)?,
            block_size: 0,
            info: loop_info64 {
                lo_device: 0,
                lo_inode: 0,
                lo_rdevice: 0,
                lo_offset: 0,
                lo_sizelimit: 0,
                lo_number: 0,
                lo_encrypt_type: 0,
                lo_encrypt_key_size: 0,
                lo_flags: LO_FLAGS_READ_ONLY as u32 | LO_FLAGS_PARTSCAN as u32,
                lo_file_name: [0; 64],
                lo_crypt_name: [0; 64],
                lo_encrypt_key: [0; 32],
                lo_init: [0; 2],
            },
            __reserved: [0; 8],
        };
        // SAFETY: the call reads a `loop_config`, which is what it is given.
        unsafe {
            ioctl::ioctl(
                &device,
                Setter::<{ LOOP_CONFIGURE }, loop_config>::new(config),
            )
        }?;
        Ok(())
    }

    /// Frees the device; if it is in use, as soon as it no longer is.
    ///
    /// # Errors
    /// It shows nothing, or this user may not.
    pub fn clear(self) -> io::Result<()> {
        let device = File::open(self.path())?;
        // SAFETY: the call takes no argument.
        unsafe { ioctl::ioctl(&device, NoArg::<{ LOOP_CLR_FD }>::new()) }?;
        Ok(())
    }

    /// The file that it shows; `None` if it shows none.
    ///
    /// # Errors
    /// There is no such device.
    pub fn backing_file(self) -> io::Result<Option<PathBuf>> {
        let device = PathBuf::from(format!("/sys/block/loop{}", self.0));
        match std::fs::read(device.join("loop/backing_file")) {
            Ok(path) => {
                use std::os::unix::ffi::OsStrExt as _;
                let path = path.strip_suffix(b"\n").unwrap_or(&path);
                Ok(Some(
                    Path::new(std::ffi::OsStr::from_bytes(path)).to_owned(),
                ))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::metadata(device).map(|_| None)
            }
            Err(error) => Err(error),
        }
    }

    /// All devices that show a file, with that file.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn assigned() -> io::Result<Vec<(Self, PathBuf)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/sys/block")? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("loop"));
            let Some(device) = number.and_then(|number| number.parse().ok()).map(Self) else {
                continue;
            };
            // It can vanish meanwhile.
            if let Ok(Some(backing)) = device.backing_file() {
                found.push((device, backing));
            }
        }
        found.sort_by_key(|(device, _)| device.0);
        Ok(found)
    }
}
