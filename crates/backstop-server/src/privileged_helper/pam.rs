//! The system's PAM library, loaded when it is needed: a system without it can run everything else.
//!
//! Only called in a process of its own (see [`super::conversation`]): modules may hang, leak, fork or crash.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::ptr;

use libloading::{Library, Symbol};
use zeroize::Zeroizing;

use super::message::Answer;

/// The PAM service, as on a stock server.
const SERVICE: &str = "proxmox-backup-auth";
const LIBRARY: &str = "libpam.so.0";
/// Where rules of a service can be.
const RULES: [&str; 2] = ["/etc/pam.d", "/usr/lib/pam.d"];
/// Most of what modules say that is told on, in bytes.
const MAX_SAID: usize = 512;
/// Most prompts that are answered in one call.
const MAX_PROMPTS: usize = 32;

const SUCCESS: c_int = 0;
const BUFFER_ERROR: c_int = 5;
const CONVERSATION_ERROR: c_int = 19;
/// Return values that mean that somebody may not, as opposed to something that does not work: permission denied, wrong
/// password, insufficient or expired credentials, unknown user, too many tries, password or account expired.
const REFUSALS: [c_int; 9] = [6, 7, 8, 10, 11, 12, 13, 17, 27];
const NEW_PASSWORD_REQUIRED: c_int = 12;

const ITEM_RHOST: c_int = 4;
const ITEM_FAIL_DELAY: c_int = 10;
const NO_EMPTY_PASSWORD: c_int = 1;

const PROMPT_ECHO_OFF: c_int = 1;
const PROMPT_ECHO_ON: c_int = 2;

#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

#[repr(C)]
struct Response {
    text: *mut c_char,
    code: c_int,
}

type Converse = extern "C" fn(c_int, *mut *const Message, *mut *mut Response, *mut c_void) -> c_int;

#[repr(C)]
struct Conversation {
    converse: Converse,
    data: *mut c_void,
}

type Handle = *mut c_void;
type Start =
    unsafe extern "C" fn(*const c_char, *const c_char, *const Conversation, *mut Handle) -> c_int;
type SetItem = unsafe extern "C" fn(Handle, c_int, *const c_void) -> c_int;
type Step = unsafe extern "C" fn(Handle, c_int) -> c_int;
type ErrorText = unsafe extern "C" fn(Handle, c_int) -> *const c_char;

/// What the modules are told, and what they say.
struct Dialogue {
    user: CString,
    password: Zeroizing<Vec<u8>>,
    said: String,
}

/// What is done with a session of the library.
pub(super) enum Task {
    /// Check the password, then the account.
    Authenticate,
    /// Set the password. The process is root, which is not asked for the old one.
    SetPassword,
}

/// Runs one session for `user`. `password` is the one to check or to set.
pub(super) fn run(task: &Task, user: &str, password: &str, rhost: Option<&str>) -> Answer {
    match session(task, user, password, rhost) {
        Ok(answer) => answer,
        Err(reason) => Answer::Failed(reason),
    }
}

fn session(task: &Task, user: &str, password: &str, rhost: Option<&str>) -> Result<Answer, String> {
    let no_nul = |text: &str| CString::new(text).map_err(|_| "a text holds a NUL".to_owned());
    let (service, name) = (no_nul(SERVICE)?, no_nul(user)?);
    let rhost = rhost.map(no_nul).transpose()?;
    let mut secret = Zeroizing::new(Vec::with_capacity(password.len() + 1));
    secret.extend_from_slice(password.as_bytes());
    secret.push(0);
    // SAFETY: loading the system's PAM library runs its initialisers, which is what every log-in program does.
    let library = unsafe { Library::new(LIBRARY) }.map_err(|err| {
        format!(
            "unable to load {LIBRARY}, the system's library for log-ins - {err}; install it (Debian: libpam0g), or use \
             users of another realm"
        )
    })?;
    let start: Symbol<'_, Start> = symbol(&library, c"pam_start")?;
    let end: Symbol<'_, Step> = symbol(&library, c"pam_end")?;
    let set_item: Symbol<'_, SetItem> = symbol(&library, c"pam_set_item")?;
    let error_text: Symbol<'_, ErrorText> = symbol(&library, c"pam_strerror")?;
    let steps: Vec<(Symbol<'_, Step>, c_int)> = match task {
        Task::Authenticate => vec![
            (symbol(&library, c"pam_authenticate")?, NO_EMPTY_PASSWORD),
            (symbol(&library, c"pam_acct_mgmt")?, NO_EMPTY_PASSWORD),
        ],
        Task::SetPassword => vec![(symbol(&library, c"pam_chauthtok")?, 0)],
    };
    let dialogue = Box::into_raw(Box::new(Dialogue {
        user: name.clone(),
        password: secret,
        said: String::new(),
    }));
    let conversation = Conversation {
        converse,
        data: dialogue.cast(),
    };
    let mut handle: Handle = ptr::null_mut();
    // SAFETY: the strings end with NUL, `conversation` and `dialogue` outlive the session, which `end` closes, and `handle`
    // is only used after a successful start. Items are copied by the library (strings) or live for ever (the function).
    let (outcome, text) = unsafe {
        let mut outcome = start(service.as_ptr(), name.as_ptr(), &conversation, &mut handle);
        if outcome == SUCCESS {
            if let Some(rhost) = &rhost {
                outcome = set_item(handle, ITEM_RHOST, rhost.as_ptr().cast());
            }
            if outcome == SUCCESS {
                // The server is late with refusals itself, without a process that waits; a library without this item may wait.
                let _ = set_item(handle, ITEM_FAIL_DELAY, no_delay as *const c_void);
            }
            for (step, flags) in &steps {
                if outcome == SUCCESS {
                    outcome = step(handle, *flags);
                }
            }
        }
        let text = error_text(handle, outcome);
        let text = if text.is_null() {
            format!("error {outcome}")
        } else {
            CStr::from_ptr(text).to_string_lossy().into_owned()
        };
        if !handle.is_null() {
            let _ = end(handle, outcome);
        }
        (outcome, text)
    };
    // SAFETY: it comes from `Box::into_raw` above, and the session that used it has ended.
    let dialogue = unsafe { Box::from_raw(dialogue) };
    if outcome == SUCCESS {
        return Ok(Answer::Done);
    }
    let mut reason = format!("PAM: {text}");
    if outcome == NEW_PASSWORD_REQUIRED {
        reason.push_str("; the password has expired, set a new one with passwd(1)");
    }
    // A module that repeats what it was told is not listened to.
    if !dialogue.said.is_empty() && (password.is_empty() || !dialogue.said.contains(password)) {
        reason.push_str(&format!(" ({})", dialogue.said));
    }
    if !RULES
        .iter()
        .any(|folder| Path::new(folder).join(SERVICE).exists())
    {
        reason.push_str(&format!(
            "; there is no /etc/pam.d/{SERVICE}, so that the rules of `other` apply, which often refuse everybody - the \
             manual (server.md) has a file to install"
        ));
    }
    Ok(if REFUSALS.contains(&outcome) {
        Answer::Refused(reason)
    } else {
        Answer::Failed(reason)
    })
}

fn symbol<'a, T>(library: &'a Library, name: &CStr) -> Result<Symbol<'a, T>, String> {
    // SAFETY: the types of all functions that are asked for are those of the documented interface of Linux-PAM.
    unsafe { library.get(name.to_bytes_with_nul()) }
        .map_err(|err| format!("{LIBRARY} is not the library that is expected - {err}"))
}

extern "C" fn no_delay(_outcome: c_int, _microseconds: c_uint, _data: *mut c_void) {}

/// Answers the modules: the password to what is not to be seen, the user's name to everything else.
extern "C" fn converse(
    count: c_int,
    messages: *mut *const Message,
    responses: *mut *mut Response,
    data: *mut c_void,
) -> c_int {
    let count = match usize::try_from(count) {
        Ok(count @ 1..=MAX_PROMPTS) => count,
        _ => return CONVERSATION_ERROR,
    };
    if messages.is_null() || responses.is_null() || data.is_null() {
        return CONVERSATION_ERROR;
    }
    // SAFETY: `data` is the dialogue of `session`, which lives as long as the session and is touched nowhere else meanwhile;
    // `messages` holds `count` pointers (Linux-PAM's convention). The answers are allocated as modules expect to free them,
    // and zeroed first, so that those without a text are null.
    unsafe {
        let dialogue = &mut *data.cast::<Dialogue>();
        let answers: *mut Response = libc::calloc(count, size_of::<Response>()).cast();
        if answers.is_null() {
            return BUFFER_ERROR;
        }
        for index in 0..count {
            let message = *messages.add(index);
            if message.is_null() {
                continue;
            }
            let message = &*message;
            let text = match message.style {
                PROMPT_ECHO_OFF => dialogue.password.as_ptr().cast::<c_char>(),
                PROMPT_ECHO_ON => dialogue.user.as_ptr(),
                _ => {
                    if !message.text.is_null() {
                        dialogue.hear(CStr::from_ptr(message.text));
                    }
                    continue;
                }
            };
            // Out of memory shows as a missing answer, which modules refuse.
            (*answers.add(index)).text = libc::strdup(text);
        }
        *responses = answers;
    }
    SUCCESS
}

impl Dialogue {
    fn hear(&mut self, text: &CStr) {
        let text = text.to_string_lossy();
        if self.said.len() + text.len() > MAX_SAID {
            return;
        }
        if !self.said.is_empty() {
            self.said.push_str("; ");
        }
        self.said.push_str(text.trim());
    }
}
