//! Users and groups of an image: what a request's user means in /etc/passwd and /etc/group, which anybody may have written.
//!
//! Owns: the two formats (passwd(5), group(5)) and what the CRI's user fields mean. Must not: open a file; whoever looks gives the
//! lines, under a limit of its own. Trusts no line (CVE-2024-40635: an id that does not fit is no id). Fuzz target: `account`.
use crate::{Error, ErrorKind, Result, RunAs, SupplementalGroupsPolicy};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead};

/// Where users are named in an image.
pub const PASSWD: &str = "/etc/passwd";
/// Where groups are named in an image.
pub const GROUP: &str = "/etc/group";
/// Longest of the two files that is read, in bytes (CVE-2026-47262: a huge file costs nobody but its container).
pub const MAX_ACCOUNT_FILE: u64 = 4 * 1024 * 1024;
/// Most supplementary groups: what fits into one message of init's, far above what people use.
const MAX_GROUPS: usize = 2048;

/// Who a process is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// As asked for.
    pub run_as: RunAs,
    /// The image's `User`, for [`RunAs::Image`].
    pub image_user: String,
    /// Supplementary groups.
    pub supplemental_groups: Vec<u32>,
    /// Their policy.
    pub groups_policy: SupplementalGroupsPolicy,
}

/// Who the process will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, the primary one included.
    pub groups: Vec<u32>,
    /// Home directory of the passwd entry, else `/`.
    pub home: Vec<u8>,
}

/// The lines of a file; `None` for one that is not there.
pub type Lines = Option<Box<dyn BufRead>>;

impl User {
    /// Whether it is known only by a name, so that an image may lack it. Errors: `InvalidArgument` for a number out of range.
    pub fn needs_names(&self) -> Result<bool> {
        let (who, group) = wanted(self)?;
        let named = |reference: &Reference| matches!(reference, Reference::Name(_));
        Ok(named(&who) || group.as_ref().is_some_and(named))
    }

    /// Resolves it. `open` gives the lines of [`PASSWD`] and [`GROUP`], each at most once, and its errors are passed on.
    /// Errors: `FailedPrecondition` for a name that the files do not have; `InvalidArgument` for a number out of range or too
    /// many groups.
    pub fn resolve<E: From<Error>>(&self, open: impl FnMut(&str) -> Result<Lines, E>) -> Result<Account, E> {
        resolve(self, open)
    }
}

fn missing(what: &str, name: &[u8], file: &str) -> Error {
    let name = String::from_utf8_lossy(name);
    Error::new(ErrorKind::FailedPrecondition, format!("the {what} {name} is not in the image's {file}"))
}

fn unread(file: &str) -> impl Fn(io::Error) -> Error + '_ {
    move |e| Error::from(e).context(format!("read {file} in the container"))
}

/// A name or a number.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reference {
    Id(u32),
    Name(Vec<u8>),
}

impl Reference {
    /// Digits are a number; one that does not fit is refused.
    fn parse(text: &str, field: &str) -> Result<Self> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Self::Name(text.as_bytes().to_vec()));
        }
        text.parse().ok().filter(|id| *id != u32::MAX).map(Self::Id).ok_or_else(|| out_of_range(field, text))
    }
}

fn out_of_range(field: &str, text: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{field} {text} is out of range: at most {}", u32::MAX - 1))
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: Vec<u8>,
    uid: u32,
    gid: u32,
    home: Vec<u8>,
}

fn resolve<E: From<Error>>(user: &User, mut open: impl FnMut(&str) -> Result<Lines, E>) -> Result<Account, E> {
    let (who, group) = wanted(user)?;
    let entry = match open(PASSWD)? {
        Some(lines) => find_user(lines, &who).map_err(unread(PASSWD))?,
        None => None,
    };
    let uid = match (&who, &entry) {
        (_, Some(entry)) => entry.uid,
        (Reference::Id(uid), None) => *uid,
        // Images without /etc/passwd say root too.
        (Reference::Name(name), None) if name == b"root" => 0,
        (Reference::Name(name), None) => return Err(missing("user", name, PASSWD).into()),
    };
    let mut memberships = Memberships { group: group.as_ref(), user: None, gid: None, member_of: Vec::new() };
    if user.groups_policy == SupplementalGroupsPolicy::Merge {
        memberships.user = entry.as_ref().map(|e| e.name.as_slice());
    }
    let needed = memberships.user.is_some() || matches!(group, Some(Reference::Name(_)));
    if needed && let Some(lines) = open(GROUP)? {
        memberships.read(lines).map_err(unread(GROUP))?;
    }
    let gid = match (&group, memberships.gid) {
        (Some(Reference::Id(gid)), _) => *gid,
        (Some(Reference::Name(_)), Some(gid)) => gid,
        (Some(Reference::Name(name)), None) => return Err(missing("group", name, GROUP).into()),
        (None, _) => entry.as_ref().map_or(0, |e| e.gid),
    };
    let groups = all_groups(user, gid, memberships.member_of)?;
    if uid == u32::MAX {
        return Err(out_of_range("an id of", &uid.to_string()).into());
    }
    let home = entry.map(|e| e.home).filter(|home| home.starts_with(b"/")).unwrap_or_else(|| b"/".to_vec());
    Ok(Account { uid, gid, groups, home })
}

fn all_groups(user: &User, gid: u32, member_of: Vec<u32>) -> Result<Vec<u32>> {
    let mut groups = member_of;
    groups.push(gid);
    groups.extend(&user.supplemental_groups);
    groups.sort_unstable();
    groups.dedup();
    if groups.contains(&u32::MAX) {
        return Err(out_of_range("an id of", &u32::MAX.to_string()));
    }
    if groups.len() > MAX_GROUPS {
        let problem = format!("the user is in {} groups; at most {MAX_GROUPS} are possible", groups.len());
        return Err(Error::new(ErrorKind::InvalidArgument, problem));
    }
    Ok(groups)
}

fn wanted(user: &User) -> Result<(Reference, Option<Reference>)> {
    match &user.run_as {
        RunAs::Uid { uid, gid } => Ok((Reference::Id(*uid), gid.map(Reference::Id))),
        RunAs::Name { name, gid } => Ok((Reference::parse(name, "user")?, gid.map(Reference::Id))),
        RunAs::Image => {
            // `user`, `user:group`, each a name or a number (image-spec, config.md).
            let (name, group) =
                user.image_user.split_once(':').map_or((user.image_user.as_str(), ""), |(name, group)| (name, group));
            let who = if name.is_empty() { Reference::Id(0) } else { Reference::parse(name, "user")? };
            let group = if group.is_empty() { None } else { Some(Reference::parse(group, "group")?) };
            Ok((who, group))
        }
    }
}

/// The first entry with this name or number. Lines that are not entries are passed over.
fn find_user(mut lines: Box<dyn BufRead>, who: &Reference) -> io::Result<Option<Entry>> {
    let mut line = Vec::new();
    while next(&mut lines, &mut line)? {
        let fields: Vec<&[u8]> = line.split(|b| *b == b':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else { continue };
        let (Some(uid), Some(gid)) = (number(uid), number(gid)) else { continue };
        let matches = match who {
            Reference::Id(id) => uid == *id,
            Reference::Name(wanted) => name == wanted.as_slice(),
        };
        if matches {
            return Ok(Some(Entry { name: name.to_vec(), uid, gid, home: home.to_vec() }));
        }
    }
    Ok(None)
}

struct Memberships<'a> {
    group: Option<&'a Reference>,
    user: Option<&'a [u8]>,
    gid: Option<u32>,
    member_of: Vec<u32>,
}

impl Memberships<'_> {
    fn read(&mut self, mut lines: Box<dyn BufRead>) -> io::Result<()> {
        let mut line = Vec::new();
        while next(&mut lines, &mut line)? {
            let mut fields = line.split(|b| *b == b':');
            let (Some(name), Some(_), Some(gid)) = (fields.next(), fields.next(), fields.next().and_then(number))
            else {
                continue;
            };
            if self.gid.is_none() && matches!(self.group, Some(Reference::Name(wanted)) if name == wanted.as_slice()) {
                self.gid = Some(gid);
            }
            let members = fields.next().unwrap_or_default();
            if let Some(user) = self.user
                && members.split(|b| *b == b',').any(|member| member == user)
                && self.member_of.len() <= MAX_GROUPS
            {
                self.member_of.push(gid);
            }
        }
        Ok(())
    }
}

/// Reads a line without its end; false at the end of the file.
fn next(lines: &mut Box<dyn BufRead>, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    if lines.read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    line.truncate(line.trim_ascii_end().len());
    Ok(true)
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str = "# people\nroot:x:0:0:root:/root:/bin/sh\nbad:x:4294967296:1::/:\nshort:x:1\n\
        app:x:1000:1001:App:/home/app:/bin/sh\nweb:x:33:33:::\nlast:x:7:8::rel:";
    const GROUP: &str =
        "root:x:0:\nwheel:x:10:root,app\nstaff:x:50:app\napp:x:1001:\nhuge:x:99999999999:app\nx:x:60:application";

    fn resolve_in(user: &User) -> Result<Account> {
        user.resolve(|path| {
            let text = if path == super::PASSWD { PASSWD } else { GROUP };
            Ok(Some(Box::new(io::Cursor::new(text.as_bytes().to_vec()))))
        })
    }

    fn image(user: &str) -> User {
        User { image_user: user.into(), ..User::default() }
    }

    fn ids(user: &User) -> (u32, u32, Vec<u32>) {
        let it = resolve_in(user).unwrap();
        (it.uid, it.gid, it.groups)
    }

    #[test]
    fn users_of_images_are_names_or_numbers() {
        assert_eq!(ids(&image("")), (0, 0, vec![0, 10]));
        assert_eq!(ids(&image("app")), (1000, 1001, vec![10, 50, 1001]));
        assert_eq!(ids(&image("1000")), (1000, 1001, vec![10, 50, 1001]));
        assert_eq!(ids(&image("app:staff")), (1000, 50, vec![10, 50]));
        assert_eq!(ids(&image("4711:12")), (4711, 12, vec![12]));
        assert_eq!(ids(&image("4711")), (4711, 0, vec![0]));
        assert!(resolve_in(&image("nobody")).unwrap_err().message().contains("nobody"));
        assert!(resolve_in(&image("app:nogroup")).unwrap_err().message().contains("nogroup"));
        assert_eq!(resolve_in(&image("app")).unwrap().home, b"/home/app");
        assert_eq!(resolve_in(&image("last")).unwrap().home, b"/");
    }

    #[test]
    fn ids_that_do_not_fit_are_not_ids() {
        for it in ["4294967295", "4294967296", "99999999999999999999", "0:4294967295"] {
            assert!(resolve_in(&image(it)).unwrap_err().message().contains("out of range"), "{it}");
        }
        assert!(resolve_in(&image("bad")).is_err());
        assert!(resolve_in(&image("-1")).is_err());
        let user = User { run_as: RunAs::Uid { uid: u32::MAX, gid: None }, ..User::default() };
        assert!(resolve_in(&user).is_err());
        let user = User { supplemental_groups: vec![u32::MAX], ..User::default() };
        assert!(resolve_in(&user).is_err());
    }

    #[test]
    fn strict_takes_no_group_of_the_image() {
        let user = User {
            run_as: RunAs::Name { name: "app".into(), gid: None },
            supplemental_groups: vec![5, 5],
            groups_policy: SupplementalGroupsPolicy::Strict,
            ..User::default()
        };
        assert_eq!(ids(&user), (1000, 1001, vec![5, 1001]));
        let user = User { run_as: RunAs::Uid { uid: 1000, gid: Some(7) }, supplemental_groups: vec![5], ..user };
        let user = User { groups_policy: SupplementalGroupsPolicy::Merge, ..user };
        assert_eq!(ids(&user), (1000, 7, vec![5, 7, 10, 50]));
    }

    #[test]
    fn only_names_can_be_missing() {
        for (user, names) in
            [("", false), ("0", false), ("7:8", false), ("app", true), ("7:staff", true), ("root", true)]
        {
            assert_eq!(image(user).needs_names().unwrap(), names, "{user:?}");
        }
        assert!(image("4294967295").needs_names().is_err());
        assert_eq!(resolve_in(&image("nobody")).unwrap_err().kind(), ErrorKind::FailedPrecondition);
    }

    #[test]
    fn an_image_without_files_has_root_and_numbers() {
        let none = |user: &User| user.resolve::<Error>(|_| Ok(None)).map(|a| a.uid);
        assert_eq!(none(&image("root")).unwrap(), 0);
        assert_eq!(none(&image("65532:65532")).unwrap(), 65532);
        assert!(none(&image("app")).is_err());
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(passwd in proptest::collection::vec(any::<u8>(), 0..300),
                                       group in proptest::collection::vec(any::<u8>(), 0..300)) {
            for user in ["", "app", "0:0", "app:app"] {
                let _ = image(user).resolve::<Error>(|path| {
                    let text = if path == super::PASSWD { passwd.clone() } else { group.clone() };
                    Ok(Some(Box::new(io::Cursor::new(text))))
                });
            }
        }
    }
}
