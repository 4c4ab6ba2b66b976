
/* Copyright (C) the ngx_http_iothub_module authors */

/* Unit test of the sender room. */

#include "tap.h"

#include "ngx_http_iothub_sender.h"
#include "ngx_http_iothub_sas.h"


typedef struct {
    const char  *name;
    const char  *text;
    size_t       len;
    ngx_uint_t   line;
    const char  *reason;   /* a part of it */
} refused_t;


static ngx_pool_t  *pool;


static ngx_str_t
str(const char *s)
{
    ngx_str_t  result;

    result.len = ngx_strlen(s);
    result.data = (u_char *) s;

    return result;
}


/* the text is gone when it was parsed, as a caller wipes it */

static ngx_int_t
parse(ngx_array_t **secrets, const char *s, size_t len, const char **reason,
    ngx_uint_t *line)
{
    ngx_str_t  text;
    ngx_int_t  rc;

    *secrets = ngx_array_create(pool, 1, sizeof(ngx_str_t));
    text.data = malloc(len ? len : 1);

    if (*secrets == NULL || text.data == NULL) {
        exit(2);
    }

    text.len = len;
    ngx_memcpy(text.data, s, len);

    *reason = NULL;
    *line = 77;

    rc = ngx_http_iothub_sender_parse_secrets(pool, &text, *secrets, reason,
                                              line);

    ngx_memset(text.data, '!', len);
    free(text.data);

    return rc;
}


static ngx_int_t
check(ngx_array_t *secrets, const char *s)
{
    ngx_int_t  rc;
    ngx_str_t  value;

    value.len = ngx_strlen(s);
    value.data = malloc(value.len ? value.len : 1);

    if (value.data == NULL) {
        exit(2);
    }

    ngx_memcpy(value.data, s, value.len);

    rc = ngx_http_iothub_sender_check_secret(secrets, &value);

    free(value.data);

    return rc;
}


static void
test_secrets(void)
{
    ngx_str_t     value, *secret;
    ngx_uint_t    i, line;
    ngx_array_t  *secrets;
    const char   *reason;

    static const char  text[] =
        "\xEF\xBB\xBF# of 2026\r\n"
        "first secret\r\n"
        "\n"
        "  \t second#2 \t\n"
        "  # no secret\n"
        "caf\xC3\xA9\ttea\n"
        "last";

    static const char  *good[] = {
        "first secret", "second#2", "caf\xC3\xA9\ttea", "last", NULL
    };

    static const char  *bad[] = {
        "", " ", "#", "# of 2026", "# no secret", "of 2026", "first secret ",
        " first secret", "first secret\r", "first", "firstsecret",
        "First secret", "first secreT", "first secre", "first secrets",
        "second", "second#", "laste", "las", "lasx", "xast",
        "first secret\n\nsecond#2", "\xEF\xBB\xBF", NULL
    };

    is(parse(&secrets, text, sizeof(text) - 1, &reason, &line), NGX_OK,
       "secrets are parsed");
    is(secrets->nelts, 4, "... four of them");

    for (i = 0; good[i]; i++) {
        is(check(secrets, good[i]), NGX_OK, "line %u is accepted",
           (unsigned) i);
    }

    for (i = 0; bad[i]; i++) {
        is(check(secrets, bad[i]), NGX_DECLINED, "wrong value %u is refused",
           (unsigned) i);
    }

    value.data = (u_char *) "last\0";
    value.len = 5;
    is(ngx_http_iothub_sender_check_secret(secrets, &value), NGX_DECLINED,
       "a NUL does not end the value");

    ngx_str_null(&value);
    is(ngx_http_iothub_sender_check_secret(secrets, &value), NGX_DECLINED,
       "no bytes");
    is(ngx_http_iothub_sender_check_secret(secrets, NULL), NGX_DECLINED,
       "no value");

    /* what no file can say: an empty secret */

    secret = secrets->elts;
    ngx_str_null(&value);
    is(ngx_http_iothub_sas_sha256(secret[0].data, &value, 1), NGX_OK,
       "digest of an empty secret");
    is(ngx_http_iothub_sender_check_secret(secrets, &value), NGX_DECLINED,
       "... which lets nobody in");

    secrets->nelts = 0;
    value = str("last");
    is(ngx_http_iothub_sender_check_secret(secrets, &value), NGX_DECLINED,
       "without secrets nobody gets in");
}


/* secrets are kept as digests of one size, in the order of their lines */

static void
test_digests(void)
{
    ngx_str_t    *secret;
    ngx_uint_t    line;
    ngx_array_t  *secrets;
    const char   *reason;

    is(parse(&secrets, "a\nlonger secret\na\n", 18, &reason, &line), NGX_OK,
       "three lines, two the same");
    is(secrets->nelts, 3, "... make three digests");

    secret = secrets->elts;

    ok(secret[0].len == 32 && secret[1].len == 32, "... of one size");
    ok(ngx_memcmp(secret[0].data, secret[2].data, 32) == 0
       && ngx_memcmp(secret[0].data, secret[1].data, 32) != 0,
       "... that say which are the same");
}


static void
test_refused(void)
{
    ngx_uint_t    line;
    refused_t    *c;
    ngx_array_t  *secrets;
    const char   *reason;

    static refused_t  cases[] = {
        { "empty file", "", 0, 0, "no secret" },
        { "blank file", " \r\n\n\t\n", 6, 0, "no secret" },
        { "only comments", "# s3cret\n#\n", 11, 0, "no secret" },
        { "a NUL", "x\n\ns3cr\0et\n", 11, 3, "control" },
        { "UTF-16", "\xFF\xFEs\0\n\0", 6, 1, "control" },
        { "an escape", "s3cret\033[0m\n", 11, 1, "control" },
        { "a DEL", "s3cret\177\n", 8, 1, "control" },
        { "a CR in the middle", "s3cret\rmore\n", 12, 1, "control" },
        { NULL, NULL, 0, 0, NULL }
    };

    for (c = cases; c->name; c++) {
        is(parse(&secrets, c->text, c->len, &reason, &line), NGX_DECLINED,
           "%s is refused", c->name);
        is(line, c->line, "... in line %u", (unsigned) c->line);
        ok(reason && ngx_strstr(reason, c->reason)
           && !ngx_strstr(reason, "s3c"), "... reason: %s",
           reason ? reason : "none");
    }
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

    test_secrets();
    test_digests();
    test_refused();

    ngx_destroy_pool(pool);

    return done_testing();
}
