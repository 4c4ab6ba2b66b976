
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * Unit test of the sas room.  Reads the token vectors from standard input, a
 * line each: name, resource URI, sr, policy, key in base64, expiry, token,
 * separated by tabs, with "-" for no policy.
 */

#include "tap.h"

#include "ngx_http_iothub_keys.h"
#include "ngx_http_iothub_sas.h"


#define KEY_A  "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
#define KEY_B  "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="

#define RAW_A  "0123456789abcdef0123456789abcdef"
#define RAW_B  "fedcba9876543210fedcba9876543210"

#define CS(host, policy, key)                                                 \
    "HostName=" host ";SharedAccessKeyName=" policy ";SharedAccessKey=" key


typedef struct {
    const char  *text;
    ngx_int_t    rc;
    const char  *key;
} decode_case_t;


typedef struct {
    const char  *name;
    const char  *text;
    ngx_uint_t   nkeys;    /* 0: refused */
    ngx_uint_t   line;
    const char  *reason;   /* a part of it */
} file_case_t;


static ngx_pool_t  *pool;


static ngx_str_t
str(const char *s)
{
    ngx_str_t  result;

    result.len = ngx_strlen(s);
    result.data = (u_char *) s;

    return result;
}


/*
 * A copy that ends exactly where its bytes end: ASan sees what reads on, and
 * what still points into it when it was freed.
 */

static ngx_str_t
exact(const char *s)
{
    ngx_str_t  result;

    result.len = ngx_strlen(s);
    result.data = malloc(result.len ? result.len : 1);

    if (result.data == NULL) {
        exit(2);
    }

    ngx_memcpy(result.data, s, result.len);

    return result;
}


static void
test_decode(void)
{
    ngx_str_t      text, key;
    ngx_int_t      rc;
    decode_case_t *c;

    static decode_case_t  cases[] = {
        { KEY_A, NGX_OK, RAW_A },
        { "YQ==", NGX_OK, "a" },
        { "YWI=", NGX_OK, "ab" },
        { "YWJj", NGX_OK, "abc" },
        { "+/+/", NGX_OK, "\xfb\xff\xbf" },
        { "YR==", NGX_OK, "a" },
        { "", NGX_DECLINED, NULL },
        { "Y", NGX_DECLINED, NULL },
        { "YQ", NGX_DECLINED, NULL },
        { "YWI", NGX_DECLINED, NULL },
        { "YQ=", NGX_DECLINED, NULL },
        { "YWJjZ", NGX_DECLINED, NULL },
        { "====", NGX_DECLINED, NULL },
        { "Y===", NGX_DECLINED, NULL },
        { "YQ=a", NGX_DECLINED, NULL },
        { "YQ==YQ==", NGX_DECLINED, NULL },
        { "=YQ=", NGX_DECLINED, NULL },
        { "YWJj====", NGX_DECLINED, NULL },
        { "YW J", NGX_DECLINED, NULL },
        { "YWJ ", NGX_DECLINED, NULL },
        { " YWJ", NGX_DECLINED, NULL },
        { "YWJ\t", NGX_DECLINED, NULL },
        { "-_-_", NGX_DECLINED, NULL },
        { "YW\x80j", NGX_DECLINED, NULL },
        { "YW*=", NGX_DECLINED, NULL },
        { NULL, 0, NULL }
    };

    for (c = cases; c->text; c++) {
        text = exact(c->text);

        rc = ngx_http_iothub_keys_decode(pool, &text, &key);
        free(text.data);

        is(rc, c->rc, "decode \"%s\"", c->text);

        if (c->rc == NGX_OK && rc == NGX_OK) {
            is_str(&key, c->key, "... to its bytes");
        }
    }

    text.data = (u_char *) "YW\0j";
    text.len = 4;
    is(ngx_http_iothub_keys_decode(pool, &text, &key), NGX_DECLINED,
       "decode a NUL");
}


static void
check_verdict(file_case_t *c, ngx_int_t rc, ngx_uint_t nkeys,
    const char *reason, ngx_uint_t line)
{
    is(rc, c->nkeys ? NGX_OK : NGX_DECLINED, "%s", c->name);

    if (c->nkeys && rc == NGX_OK) {
        is(nkeys, c->nkeys, "... number of keys");
        return;
    }

    if (c->nkeys == 0 && rc == NGX_DECLINED) {
        is(line, c->line, "... in line %u", (unsigned) c->line);
        ok(reason && ngx_strstr(reason, c->reason), "... reason: %s",
           reason ? reason : "none");
        ok(reason && !ngx_strstr(reason, "MDEy")
           && !ngx_strstr(reason, "contoso"),
           "... that tells nothing of the file");
    }
}


static void
check_keys(ngx_str_t *keys, ngx_uint_t nkeys)
{
    is_str(&keys[0], RAW_A, "... primary");

    if (nkeys == 2) {
        is_str(&keys[1], RAW_B, "... secondary");
    }
}


static void
test_parse_keys(void)
{
    ngx_str_t     text, keys[NGX_HTTP_IOTHUB_KEYS];
    ngx_int_t     rc;
    ngx_uint_t    nkeys, line;
    const char   *reason;
    file_case_t  *c;

    static file_case_t  cases[] = {
        { "one key", KEY_A "\n", 1, 0, NULL },
        { "no newline at the end", KEY_A, 1, 0, NULL },
        { "two keys", KEY_A "\n" KEY_B "\n", 2, 0, NULL },
        { "CRLF", KEY_A "\r\n" KEY_B "\r\n", 2, 0, NULL },
        { "blanks around", " \t" KEY_A " \t \r\n\t" KEY_B " ", 2, 0, NULL },
        { "comments and blank lines",
          "# primary\n\n" KEY_A "\n \t\n  # secondary\n" KEY_B "\n#\n\n",
          2, 0, NULL },
        { "byte order mark", "\xEF\xBB\xBF" KEY_A "\n", 1, 0, NULL },
        { "byte order mark, comment", "\xEF\xBB\xBF# a\n" KEY_A, 1, 0, NULL },
        { "the same key twice", KEY_A "\n" KEY_A "\n", 1, 0, NULL },
        { "empty file", "", 0, 0, "no key" },
        { "blank file", "\n \r\n\t\n", 0, 0, "no key" },
        { "only a comment", "# " KEY_A "\n", 0, 0, "no key" },
        { "three keys", KEY_A "\n" KEY_B "\n\nYWJj\n", 0, 4, "more than two" },
        { "three keys, two the same", KEY_A "\n" KEY_A "\n" KEY_B "\n", 0, 3,
          "more than two" },
        { "not base64", "# x\n\n" KEY_A "\nnonsense!\n", 0, 4, "base64" },
        { "not base64 in line 1", "MDEy MDEy\n" KEY_A "\n", 0, 1, "base64" },
        { "padding lost", "MDEyMzQ1Njc4OWFiY2Q\n", 0, 1, "base64" },
        { "two keys in a line", KEY_A " " KEY_B "\n", 0, 1, "base64" },
        { "a connection string", CS("contoso", "p", KEY_A) "\n", 0, 1,
          "connection_string_file" },
        { NULL, NULL, 0, 0, NULL }
    };

    for (c = cases; c->name; c++) {
        text = exact(c->text);
        reason = NULL;
        nkeys = 77;
        line = 77;

        rc = ngx_http_iothub_keys_parse(pool, &text, keys, &nkeys, &reason,
                                            &line);

        ngx_memset(text.data, '!', text.len);
        free(text.data);

        check_verdict(c, rc, nkeys, reason, line);

        if (c->nkeys && rc == NGX_OK) {
            check_keys(keys, nkeys);
        }
    }
}


static void
test_parse_connection_string(void)
{
    ngx_str_t                          text;
    ngx_int_t                          rc;
    ngx_uint_t                         line;
    const char                        *reason;
    file_case_t                       *c;
    ngx_http_iothub_keys_connection_t   cs;

    static file_case_t  cases[] = {
        { "one string", CS("contoso", "webhooks", KEY_A) "\n", 1, 0, NULL },
        { "two strings",
          CS("contoso", "webhooks", KEY_A) "\n"
          CS("contoso", "webhooks", KEY_B) "\n", 2, 0, NULL },
        { "CRLF, comments, blanks",
          "# c\r\n\r\n " CS("contoso", "webhooks", KEY_A) " \r\n#\r\n"
          CS("contoso", "webhooks", KEY_B) "\r\n", 2, 0, NULL },
        { "another order",
          "SharedAccessKey=" KEY_A ";HostName=contoso;"
          "SharedAccessKeyName=webhooks", 1, 0, NULL },
        { "names in another case",
          "HOSTNAME=contoso;sharedaccesskeyname=webhooks;"
          "sharedAccessKey=" KEY_A, 1, 0, NULL },
        { "trailing and double semicolon, blanks",
          "HostName = contoso ;; SharedAccessKeyName=webhooks; "
          "SharedAccessKey=" KEY_A " ; ", 1, 0, NULL },
        { "host in another case in line 2",
          CS("contoso", "webhooks", KEY_A) "\n"
          CS("CONTOSO", "webhooks", KEY_B) "\n", 2, 0, NULL },
        { "the same string twice",
          CS("contoso", "webhooks", KEY_A) "\n"
          CS("contoso", "webhooks", KEY_A) "\n", 1, 0, NULL },
        { "empty file", "", 0, 0, "no connection string" },
        { "only a comment", "#" CS("contoso", "p", KEY_A), 0, 0,
          "no connection string" },
        { "three strings",
          CS("contoso", "webhooks", KEY_A) "\n"
          CS("contoso", "webhooks", KEY_B) "\n"
          CS("contoso", "webhooks", "YWJj") "\n", 0, 3, "more than two" },
        { "another host",
          CS("contoso", "webhooks", KEY_A) "\n"
          CS("contosi", "webhooks", KEY_B) "\n", 0, 2, "HostName" },
        { "a longer host",
          CS("contoso", "webhooks", KEY_A) "\n"
          CS("contoso2", "webhooks", KEY_B) "\n", 0, 2, "HostName" },
        { "another policy",
          CS("contoso", "webhooks", KEY_A) "\n\n"
          CS("contoso", "Webhooks", KEY_B) "\n", 0, 3,
          "SharedAccessKeyName" },
        { "no host", "SharedAccessKeyName=p;SharedAccessKey=" KEY_A, 0, 1,
          "HostName=" },
        { "no policy", "HostName=contoso;SharedAccessKey=" KEY_A, 0, 1,
          "SharedAccessKeyName=" },
        { "no key", "HostName=contoso;SharedAccessKeyName=p", 0, 1,
          "SharedAccessKey=" },
        { "no key in line 2",
          CS("contoso", "webhooks", KEY_A) "\nHostName=contoso;"
          "SharedAccessKeyName=webhooks\n", 0, 2, "SharedAccessKey=" },
        { "a key alone", KEY_A "\n", 0, 1, "unknown part" },
        { "a key without padding alone", "MDEy\n", 0, 1, "without \"=\"" },
        { "only semicolons", ";;;\n", 0, 1, "HostName=" },
        { "empty host", CS("", "webhooks", KEY_A), 0, 1, "empty" },
        { "empty key", CS("contoso", "webhooks", ""), 0, 1, "empty" },
        { "empty name", "=contoso;SharedAccessKeyName=p", 0, 1, "unknown" },
        { "a part twice", CS("contoso", "webhooks", KEY_A) ";HostName=contoso",
          0, 1, "twice" },
        { "key not base64", CS("contoso", "webhooks", "MDEyM"), 0, 1,
          "base64" },
        { "of a device",
          "HostName=contoso;DeviceId=d;SharedAccessKey=" KEY_A, 0, 1,
          "device's" },
        { "of a module",
          "HostName=contoso;SharedAccessKey=" KEY_A ";ModuleId=m", 0, 1,
          "device's" },
        { "a token",
          "HostName=contoso;SharedAccessSignature=SharedAccessSignature sr=x",
          0, 1, "expires" },
        { "behind a gateway", CS("contoso", "p", KEY_A) ";GatewayHostName=e",
          0, 1, "IoT Edge" },
        { "of an event hub",
          "Endpoint=sb://contoso/;SharedAccessKeyName=p;SharedAccessKey="
          KEY_A ";EntityPath=contoso", 0, 1, "Event Hubs" },
        { "an unknown part", CS("contoso", "p", KEY_A) ";Host=contoso", 0, 1,
          "unknown part" },
        { "a longer name", CS("contoso", "p", KEY_A) ";HostName2=contoso", 0,
          1, "unknown part" },
        { NULL, NULL, 0, 0, NULL }
    };

    for (c = cases; c->name; c++) {
        text = exact(c->text);
        reason = NULL;
        line = 77;

        rc = ngx_http_iothub_keys_parse_connection_string(pool, &text, &cs,
                                                         &reason, &line);

        ngx_memset(text.data, '!', text.len);
        free(text.data);

        check_verdict(c, rc, cs.nkeys, reason, line);

        if (c->nkeys && rc == NGX_OK) {
            check_keys(cs.keys, cs.nkeys);
            is_str(&cs.hostname, "contoso", "... host");
            is_str(&cs.policy, "webhooks", "... policy");
        }
    }
}


static void
test_escape(void)
{
    u_char      buf[16], *end;
    ngx_str_t   s;
    ngx_uint_t  i, wrong;
    u_char      c, want[4];

    static const char  kept[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "abcdefghijklmnopqrstuvwxyz0123456789-_.~";

    wrong = 0;

    for (i = 0; i < 256; i++) {
        c = (u_char) i;
        s.data = &c;
        s.len = 1;

        if (c && ngx_strchr(kept, c)) {
            want[0] = c;
            want[1] = '\0';

        } else {
            sprintf((char *) want, "%%%02X", c);
        }

        end = ngx_http_iothub_sas_escape(buf, &s);

        if ((size_t) (end - buf) != ngx_strlen(want)
            || ngx_memcmp(buf, want, end - buf) != 0
            || ngx_http_iothub_sas_escaped_size(&s) != ngx_strlen(want))
        {
            note("byte 0x%02x", c);
            wrong++;
        }
    }

    is(wrong, 0, "all bytes are escaped as encodeURIComponent() does");

    ngx_str_null(&s);
    is(ngx_http_iothub_sas_escaped_size(&s), 0, "nothing has no size");
    ok(ngx_http_iothub_sas_escape(buf, &s) == buf, "nothing is escaped");
}


/* signs into a buffer of exactly the announced size */

static ngx_int_t
sign(ngx_str_t *token, ngx_str_t *sr, ngx_str_t *policy, ngx_str_t *key,
    time_t expiry)
{
    u_char  *end;
    size_t   size;

    size = ngx_http_iothub_sas_token_size(sr, policy);

    token->data = malloc(size);
    if (token->data == NULL) {
        exit(2);
    }

    end = ngx_http_iothub_sas_token(token->data, token->data + size, sr,
                                    policy, key, expiry);
    token->len = end ? (size_t) (end - token->data) : 0;

    return end ? NGX_OK : NGX_ERROR;
}


static void
test_vector(char *line)
{
    char       *field[7], *tab;
    u_char      buf[512];
    ngx_str_t   uri, sr, policy, base64, key, token, escaped;
    ngx_uint_t  i;

    line[strcspn(line, "\n")] = '\0';

    for (i = 0; i < 7; i++) {
        field[i] = line;

        tab = strchr(line, '\t');
        if (tab) {
            *tab = '\0';
            line = tab + 1;
        }
    }

    uri = str(field[1]);
    sr = str(field[2]);
    policy = str(strcmp(field[3], "-") ? field[3] : "");
    base64 = str(field[4]);

    if (ngx_http_iothub_keys_decode(pool, &base64, &key) != NGX_OK) {
        ok(0, "vector %s: key", field[0]);
        return;
    }

    sign(&token, &sr, &policy, &key, atoll(field[5]));
    is_str(&token, field[6], "vector %s: token", field[0]);
    free(token.data);

    if (strchr(field[2], '/')) {
        return;
    }

    /* Node writes some digits in lower case */

    escaped.data = buf;
    escaped.len = ngx_http_iothub_sas_escape(buf, &uri) - buf;

    ok(escaped.len == sr.len
       && ngx_strncasecmp(escaped.data, sr.data, sr.len) == 0,
       "vector %s: sr", field[0]);
}


static void
test_vectors(void)
{
    char        line[4096];
    ngx_uint_t  n;

    n = 0;

    while (fgets(line, sizeof(line), stdin)) {
        test_vector(line);
        n++;
    }

    ok(n >= 17, "%u vectors", (unsigned) n);
}


static void
test_token(void)
{
    u_char      buf[512];
    size_t      size;
    ngx_str_t   sr, policy, none, key, a, b;
    ngx_uint_t  i, wrong;
    u_char     *end;

    sr = str("myhub.azure-devices.net");
    policy = str("webhook");
    none = str("");
    key = str(RAW_A);

    size = ngx_http_iothub_sas_token_size(&sr, &policy);

    /* a signature of nothing but "/" and "+" is too rare to be tried */

    ok(size >= sizeof("SharedAccessSignature sr=&sig=&skn=webhook"
                      "&se=-9223372036854775808") - 1 + sr.len + 3 * 44,
       "the announced size has room for the longest token");

    ok(ngx_http_iothub_sas_token(buf, buf + size, &sr, &policy, &key, 1)
       != NULL, "a buffer of the announced size is enough");

    ngx_memset(buf, '!', sizeof(buf));
    ok(ngx_http_iothub_sas_token(buf, buf + size - 1, &sr, &policy, &key, 1)
       == NULL, "a smaller one is refused");
    is(buf[0], '!', "... and not written to");

    ok(ngx_http_iothub_sas_token(buf, buf + 512, &sr, &policy, &none, 1)
       == NULL, "an empty key is refused");
    ok(ngx_http_iothub_sas_token(buf, buf + 512, &none, &policy, &key, 1)
       == NULL, "an empty sr is refused");

    end = ngx_http_iothub_sas_token(buf, buf + 512, &sr, &none, &key, 1);
    ok(end && ngx_strnstr(buf, "skn", end - buf) == NULL,
       "no policy, no skn");

    ok(sign(&a, &sr, &policy, &key, INT64_MAX) == NGX_OK
       && ngx_strnstr(a.data, "&se=9223372036854775807", a.len),
       "the latest time fits");
    free(a.data);

    policy = str("a b&\r\nX: y");
    sign(&a, &sr, &policy, &key, 1);
    ok(ngx_strnstr(a.data, "&skn=a%20b%26%0D%0AX%3A%20y&se=1", a.len),
       "a policy cannot inject");
    free(a.data);

    /* signatures of many lengths: the size holds, all differ */

    wrong = 0;

    for (i = 0; i < 500; i++) {
        if (sign(&a, &sr, &none, &key, 1700000000 + i) != NGX_OK
            || sign(&b, &sr, &none, &key, 1700000001 + i) != NGX_OK
            || (a.len == b.len && ngx_memcmp(a.data, b.data, a.len - 4) == 0))
        {
            wrong++;
        }

        free(a.data);
        free(b.data);
    }

    is(wrong, 0, "500 tokens differ in their signatures");
}


static void
hex(ngx_str_t *dst, u_char *buf, ngx_str_t *parts, ngx_uint_t n)
{
    u_char  digest[NGX_HTTP_IOTHUB_SAS_SHA256_LEN];

    if (ngx_http_iothub_sas_sha256(digest, parts, n) != NGX_OK) {
        ok(0, "sha256");
    }

    dst->data = buf;
    dst->len = ngx_hex_dump(buf, digest, sizeof(digest)) - buf;
}


static void
test_sha256(void)
{
    u_char      buf_a[64], buf_b[64];
    ngx_str_t   parts[3], a, b;

    hex(&a, buf_a, NULL, 0);
    is_str(&a, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8"
               "55", "digest of no part");

    ngx_str_null(&parts[0]);
    hex(&a, buf_a, parts, 1);
    is_str(&a, "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83d"
               "fc", "digest of an empty part");

    parts[0] = str("ab");
    parts[1] = str("c");
    hex(&a, buf_a, parts, 2);
    is_str(&a, "601d5476e2ccfe2c87a2bba7a322659734a05749d5b5aa781f513e4912db0d"
               "5f", "digest of two parts");

    parts[0] = str("a");
    parts[1] = str("bc");
    hex(&b, buf_b, parts, 2);
    ok(ngx_memcmp(buf_a, buf_b, 64) != 0, "parts do not run together");

    parts[2] = str("");
    hex(&a, buf_a, parts, 3);
    ok(ngx_memcmp(buf_a, buf_b, 64) != 0, "an empty part counts");

    parts[0].len = 300;
    parts[0].data = ngx_pcalloc(pool, 300);
    hex(&a, buf_a, parts, 1);
    is_str(&a, "23af300d795c35a59b389757d7f64bc1a64cbfbb902e4ee0601bd2427cd423"
               "e6", "a length of two bytes");
}


static void
test_fingerprint(void)
{
    ngx_str_t  a, b;

    a = str(RAW_A);
    b = str(RAW_B);

    ok(ngx_http_iothub_sas_fingerprint(&a) == 0x7377e56298fb4f2aull,
       "fingerprint of a key");
    ok(ngx_http_iothub_sas_fingerprint(&a)
       != ngx_http_iothub_sas_fingerprint(&b), "another key, another one");
}


int
main(int argc, char *const *argv)
{
    ngx_log_t  log;

    ngx_memzero(&log, sizeof(ngx_log_t));
    ngx_pagesize = 4096;

    pool = ngx_create_pool(4096, &log);
    if (pool == NULL) {
        return 2;
    }

    test_decode();
    test_parse_keys();
    test_parse_connection_string();
    test_escape();
    test_vectors();
    test_token();
    test_sha256();
    test_fingerprint();

    ngx_destroy_pool(pool);

    return done_testing();
}
