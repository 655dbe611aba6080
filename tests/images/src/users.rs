//! Who is known in the images. Owns: `/etc/passwd` and `/etc/group`. Must not: hold passwords.

/// Users of every image; the names that critest and people use (`nobody`, `www-data`), with Debian's numbers.
pub const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/:/bin/false
";

/// Groups of every image.
pub const GROUP: &str = "\
root:x:0:
daemon:x:1:
www-data:x:33:
nobody:x:65534:
";

/// The user that agnhost adds, for tests of groups that an image defines (KEP-3619).
pub const AGNHOST_PASSWD: &str = "user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n";

/// Its groups.
pub const AGNHOST_GROUP: &str = "\
user-defined-in-image:x:1000:
group-defined-in-image:x:50000:user-defined-in-image
";
