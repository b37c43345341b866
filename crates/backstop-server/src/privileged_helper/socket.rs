//! Datagrams between two processes that were given the two ends of a pair of sockets.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use zeroize::Zeroizing;

/// Two sockets that are connected to each other. Neither is inherited by programs that are started.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Takes the socket that a process was given as its standard input, and puts nothing in its place, so that no program
/// which this one starts inherits it.
pub(super) fn take_standard_input() -> Result<OwnedFd, String> {
    let take = || -> io::Result<OwnedFd> {
        let stdin = rustix::stdio::stdin();
        if rustix::net::sockopt::socket_type(stdin)? != SocketType::SEQPACKET {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let socket = rustix::io::fcntl_dupfd_cloexec(stdin, 3)?;
        let nothing = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(nothing)?;
        Ok(socket)
    };
    take().map_err(|err| {
        format!("this command is for the server alone, which starts it with a socket as standard input - {err}")
    })
}

/// Limits how long [`send`] and [`receive`] wait on a socket.
pub(super) fn limit_waiting(socket: BorrowedFd<'_>, limit: Duration) -> io::Result<()> {
    set_socket_timeout(socket, Timeout::Recv, Some(limit))?;
    Ok(set_socket_timeout(socket, Timeout::Send, Some(limit))?)
}

/// Whether an error means that the limit has passed.
pub(super) fn is_timeout(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Sends one datagram.
pub(super) fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    rustix::io::retry_on_intr(|| rustix::net::send(socket, bytes, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives one datagram of at most `limit` bytes. A closed socket is an error.
pub(super) fn receive(socket: BorrowedFd<'_>, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut buffer = Zeroizing::new(vec![0; limit + 1]);
    let count = rustix::io::retry_on_intr(|| {
        rustix::net::recv(socket, buffer.as_mut_slice(), RecvFlags::empty())
    })?
    .0;
    match count {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count if count > limit => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the message is too long",
        )),
        count => {
            buffer.truncate(count);
            Ok(buffer)
        }
    }
}

/// Sends an open socket.
pub(super) fn send_socket(over: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets = [socket];
    control.push(SendAncillaryMessage::ScmRights(&sockets));
    let data = [IoSlice::new(&[1])];
    rustix::net::sendmsg(over, &data, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives an open socket; `None` when the other side has ended.
pub(super) fn receive_socket(over: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0; 1];
        let mut data = [IoSliceMut::new(&mut byte)];
        let received = match rustix::net::recvmsg(
            over.as_fd(),
            &mut data,
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => continue,
            received => received?,
        };
        // Whatever came with it is owned, so that it is closed when it is not wanted.
        let mut sockets: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(found) = message {
                sockets.extend(found);
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        let is_whole = !received.flags.contains(ReturnFlags::CTRUNC) && sockets.len() == 1;
        match sockets.pop() {
            Some(socket) if is_whole => return Ok(Some(socket)),
            // Not a message of this kind: it gets no answer.
            _ => {}
        }
    }
}
