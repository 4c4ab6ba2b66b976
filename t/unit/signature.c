
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * Unit test of the signature room.  Each line of standard input is a vector:
 * name, scheme, key file, signature header, id, time, body, now, parameters,
 * separated by tabs; key file, headers, body and parameters in hex.
 */

#include "tap.h"

#include "ngx_http_iothub_signature.h"


#define LINE_MAX_LEN  65536
#define FIELDS_MAX    16


/* the parts of a vector of which any byte may be changed */

enum { KEY = 0, VALUE, ID, TIME, BODY, PARTS };


typedef struct {
    ngx_str_t    part[PARTS];
    ngx_str_t    scheme;
    ngx_str_t    parameters[FIELDS_MAX];
    ngx_uint_t   nparameters;
    time_t       now;
} vector_t;


static const char  *parts[] = { "key", "signature", "id", "time", "body" };

static ngx_pool_t  *pool;


static ngx_str_t
str(const char *s)
{
    ngx_str_t  result;

    result.len = ngx_strlen(s);
    result.data = (u_char *) s;

    return result;
}


/* of exact size, so that a step out of it is seen */

static ngx_str_t
copy(ngx_str_t *s)
{
    ngx_str_t  result;

    result.len = s->len;
    result.data = NULL;

    if (s->len) {
        result.data = malloc(s->len);

        if (result.data == NULL) {
            exit(2);
        }

        ngx_memcpy(result.data, s->data, s->len);
    }

    return result;
}


static ngx_int_t
configure(ngx_http_iothub_signature_t *signature, vector_t *v)
{
    ngx_int_t    rc;
    ngx_str_t    parameter, text;
    ngx_uint_t   i, line;
    const char  *reason;

    rc = ngx_http_iothub_signature_init(pool, signature, &v->scheme);

    for (i = 0; rc == NGX_OK && i < v->nparameters; i++) {

        parameter.data = ngx_pstrdup(pool, &v->parameters[i]);
        parameter.len = v->parameters[i].len;

        rc = ngx_http_iothub_signature_set(pool, signature, &parameter,
                                           &reason);
    }

    if (rc == NGX_OK) {
        text = copy(&v->part[KEY]);

        rc = ngx_http_iothub_signature_parse_keys(pool, signature, &text,
                                                  &reason, &line);

        ngx_memset(text.data, '!', text.len);
        free(text.data);
    }

    return rc;
}


/* the body comes in parts of this size */

static ngx_int_t
verify_in(ngx_http_iothub_signature_t *signature, vector_t *v, size_t step,
    ngx_http_iothub_signature_shown_t *shown)
{
    size_t      n, size;
    ngx_int_t   rc;
    ngx_str_t   values[3];
    ngx_uint_t  i;

    ngx_memzero(shown, sizeof(ngx_http_iothub_signature_shown_t));

    for (i = 0; i < 3; i++) {
        values[i] = copy(&v->part[VALUE + i]);
        shown->values[i] = values[i].data ? &values[i] : NULL;
    }

    rc = ngx_http_iothub_signature_show(signature, shown, v->now);

    if (rc == NGX_OK) {
        rc = ngx_http_iothub_signature_begin(pool, signature, shown);

        for (n = 0; rc == NGX_OK && n < v->part[BODY].len; n += size) {
            size = ngx_min(v->part[BODY].len - n, step);
            rc = ngx_http_iothub_signature_update(signature, shown,
                                                  v->part[BODY].data + n,
                                                  size);
        }

        if (rc == NGX_OK) {
            rc = ngx_http_iothub_signature_check(pool, signature, shown);
        }

        ngx_http_iothub_signature_end(signature, shown);
    }

    for (i = 0; i < 3; i++) {
        free(values[i].data);
    }

    return rc;
}


static ngx_int_t
verify(vector_t *v)
{
    ngx_int_t                          rc;
    ngx_http_iothub_signature_t        signature;
    ngx_http_iothub_signature_shown_t  shown;

    rc = configure(&signature, v);

    if (rc != NGX_OK) {
        return rc;
    }

    return verify_in(&signature, v, 1000000, &shown);
}


/*
 * Each byte of each part, changed in two ways, lost, and doubled, but for the
 * comma between signatures.
 */

static void
test_changes(const char *name, vector_t *v)
{
    u_char      buf[4096];
    size_t      n;
    ngx_str_t   whole;
    ngx_uint_t  i, accepted;

    for (i = 0; i < PARTS; i++) {

        whole = v->part[i];

        if (whole.len == 0 || whole.len + 1 > sizeof(buf)) {
            continue;
        }

        accepted = 0;
        v->part[i].data = buf;

        for (n = 0; n < whole.len; n++) {
            ngx_memcpy(buf, whole.data, whole.len);

            buf[n] ^= 0x01;
            accepted += verify(v) == NGX_OK;
            buf[n] ^= 0x41;
            accepted += verify(v) == NGX_OK;

            ngx_memmove(buf + n, whole.data + n + 1, whole.len - n - 1);
            v->part[i].len = whole.len - 1;
            accepted += verify(v) == NGX_OK;

            ngx_memcpy(buf, whole.data, n + 1);
            ngx_memcpy(buf + n + 1, whole.data + n, whole.len - n);
            v->part[i].len = whole.len + 1;
            accepted += whole.data[n] != ',' && verify(v) == NGX_OK;

            v->part[i].len = whole.len;
        }

        v->part[i] = whole;

        is(accepted, 0, "%s: no other %s", name, parts[i]);
    }

    is(verify(v), NGX_OK, "%s: again", name);
}


static void
test_vector(const char *name, vector_t *v)
{
    ngx_http_iothub_signature_t        signature;
    ngx_http_iothub_signature_shown_t  shown;

    is(configure(&signature, v), NGX_OK, "%s: configured", name);
    is(verify_in(&signature, v, 1000000, &shown), NGX_OK, "%s: right", name);
    is(verify_in(&signature, v, 1, &shown), NGX_OK, "%s: byte by byte", name);
    is(verify_in(&signature, v, 7, &shown), NGX_OK, "%s: in sevens", name);

    test_changes(name, v);
}


static ngx_str_t
unhex(char *s)
{
    size_t     i;
    ngx_str_t  result;

    result.len = ngx_strlen(s) / 2;
    result.data = ngx_pnalloc(pool, result.len + 1);

    for (i = 0; i < result.len; i++) {
        result.data[i] = (u_char) ngx_hextoi((u_char *) s + 2 * i, 2);
    }

    return result;
}


static ngx_uint_t
test_vectors(void)
{
    char        *field[FIELDS_MAX], *s;
    vector_t     v;
    ngx_uint_t   i, n, vectors;

    static char  line[LINE_MAX_LEN];

    for (vectors = 0; fgets(line, sizeof(line), stdin); vectors++) {

        line[strcspn(line, "\n")] = '\0';

        for (n = 0, s = line; s && n < FIELDS_MAX; n++) {
            field[n] = strsep(&s, "\t");
        }

        if (n < 8) {
            exit(2);
        }

        ngx_memzero(&v, sizeof(vector_t));

        v.scheme = str(field[1]);
        v.now = atol(field[7]);

        for (i = 0; i < PARTS; i++) {
            v.part[i] = unhex(field[2 + i]);
        }

        for (i = 8; i < n; i++) {
            v.parameters[v.nparameters++] = unhex(field[i]);
        }

        test_vector(field[0], &v);
    }

    return vectors;
}


#define HEX(c)  c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c

#define FOX       "The quick brown fox jumps over the lazy dog"
#define FOX_HEX   "f7bc83f430538424b13298e6aa6fb143"                          \
                  "ef4d59a14946175997479dbc2d1a3cd8"
#define FOX_HEX2  "F7BC83F430538424B13298E6AA6FB143"                          \
                  "EF4D59A14946175997479DBC2D1A3CD8"

/* of key "key", at 1700000000, with id "m_1": by openssl dgst -hmac */

#define STRIPE_HEX                                                            \
    "2f658d6aef4f246e91cd741bbcded747"                                        \
    "9e9605f9d41c9e248122a117e0e1765b"
#define STANDARD_64                                                           \
    "5S4DVmAIvfYXzH8M45vN01OOaxMCTIcaE3pMKAAWt+s="


typedef struct {
    const char  *scheme;
    const char  *value;
    const char  *id;
    const char  *time;
    const char  *fault;     /* NULL: right */
} header_t;


/* all with the key "key" (in base64 "a2V5") and the body FOX */

static header_t  headers[] = {

    { "github", "sha256=" FOX_HEX, NULL, NULL, NULL },
    { "github", "sha256=" FOX_HEX2, NULL, NULL, NULL },
    { "github", "  sha256=" FOX_HEX " ", NULL, NULL, NULL },
    { "github", NULL, NULL, NULL, "no" },
    { "github", "", NULL, NULL, "no" },
    { "github", " ", NULL, NULL, "no signature in" },
    { "github", ",,,", NULL, NULL, "no signature in" },
    { "github", FOX_HEX, NULL, NULL, "no signature in" },
    { "github", "sha256=", NULL, NULL, "no signature in" },
    { "github", "sha256= " FOX_HEX, NULL, NULL, "no signature in" },
    { "github", "SHA256=" FOX_HEX, NULL, NULL, "no signature in" },
    { "github", "sha1=" FOX_HEX, NULL, NULL, "no signature in" },
    { "github", "sha256=" FOX_HEX "0", NULL, NULL, "no signature in" },
    { "github", "sha256=" FOX_HEX "00", NULL, NULL, "no signature in" },
    { "github", "sha256=" HEX("0g"), NULL, NULL, "no signature in" },
    { "github", "sha256=" HEX("00"), NULL, NULL, "wrong signature in" },
    { "github", "sha256=%s", NULL, NULL, "no signature in" },

    { "stripe", "t=1700000000,v1=" STRIPE_HEX, NULL, NULL, NULL },
    { "stripe", "v1=" STRIPE_HEX ",t=1700000000", NULL, NULL, NULL },
    { "stripe", "t=1700000000, v1=" STRIPE_HEX " ", NULL, NULL, NULL },
    { "stripe", "t=1700000000,v1=" HEX("00") ",v1=" STRIPE_HEX, NULL, NULL,
      NULL },
    { "stripe", "t=1700000000,v1=" STRIPE_HEX ",v1=" HEX("00"), NULL, NULL,
      NULL },
    { "stripe", "t=1700000000,v1=x,v2=,v1,=,v1=" STRIPE_HEX ",v0=" HEX("00"),
      NULL, NULL, NULL },
    { "stripe", "t=1700000000,v0=" STRIPE_HEX, NULL, NULL,
      "no signature in" },
    { "stripe", "t=1700000000", NULL, NULL, "no signature in" },
    { "stripe", "v1=" STRIPE_HEX, NULL, NULL, "no time in" },
    { "stripe", "t=,v1=" STRIPE_HEX, NULL, NULL, "no time in" },
    { "stripe", "t=now,v1=" STRIPE_HEX, NULL, NULL, "no time in" },
    { "stripe", "t=-1700000000,v1=" STRIPE_HEX, NULL, NULL, "no time in" },
    { "stripe", "t=1700000000.0,v1=" STRIPE_HEX, NULL, NULL, "no time in" },
    { "stripe", "t=99999999999999999999999,v1=" STRIPE_HEX, NULL, NULL,
      "no time in" },
    { "stripe", "t=9223372036854775807,v1=" STRIPE_HEX, NULL, NULL,
      "time is off in" },
    { "stripe", "t=0,v1=" STRIPE_HEX, NULL, NULL, "time is off in" },
    { "stripe", "t=1700000000,t=1700000000,v1=" STRIPE_HEX, NULL, NULL,
      "two times in" },
    { "stripe", "t=1700000000,v1=" STRIPE_HEX ",t=0", NULL, NULL,
      "two times in" },
    { "stripe", "t=01700000000,v1=" STRIPE_HEX, NULL, NULL,
      "wrong signature in" },
    { "stripe", "t=1700000001,v1=" STRIPE_HEX, NULL, NULL,
      "wrong signature in" },
    { "stripe", "t=1700000000,v1=" FOX_HEX, NULL, NULL,
      "wrong signature in" },
    { "stripe", "t=1700000000,v1=" STRIPE_HEX, "m_1", "0", NULL },

    { "standard-webhooks", "v1," STANDARD_64, "m_1", "1700000000", NULL },
    { "standard-webhooks", " v1," STANDARD_64 " ", "m_1", "1700000000",
      NULL },
    { "standard-webhooks", "v1a,AAAA v1,AAAA v2,x v1," STANDARD_64, "m_1",
      "1700000000", NULL },
    { "standard-webhooks", "v1," STANDARD_64 " v1a,AAAA", "m_1",
      "1700000000", NULL },
    { "standard-webhooks", "v1," STANDARD_64 ",v1a,AAAA", "m_1",
      "1700000000", "no signature in" },
    { "standard-webhooks", "v1a," STANDARD_64, "m_1", "1700000000",
      "no signature in" },
    { "standard-webhooks", STANDARD_64, "m_1", "1700000000",
      "no signature in" },
    { "standard-webhooks", "v1,", "m_1", "1700000000", "no signature in" },
    { "standard-webhooks", "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
      "m_1", "1700000000", "no signature in" },
    { "standard-webhooks", "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==",
      "m_1", "1700000000", "no signature in" },
    { "standard-webhooks", "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=",
      "m_1", "1700000000", "no signature in" },
    { "standard-webhooks", "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
      "m_1", "1700000000", "wrong signature in" },
    { "standard-webhooks", "v1," STANDARD_64, "m_2", "1700000000",
      "wrong signature in" },
    { "standard-webhooks", "v1," STANDARD_64, "m_1", "1700000001",
      "wrong signature in" },
    { "standard-webhooks", "v1," STANDARD_64, "", "1700000000", "no" },
    { "standard-webhooks", "v1," STANDARD_64, NULL, "1700000000", "no" },
    { "standard-webhooks", "v1," STANDARD_64, "m_1", "", "no" },
    { "standard-webhooks", "v1," STANDARD_64, "m_1", NULL, "no" },
    { "standard-webhooks", NULL, "m_1", "1700000000", "no" },
    { "standard-webhooks", "v1," STANDARD_64, "m_1", "1700000000 ",
      "no time in" },
    { "standard-webhooks", "v1," STANDARD_64, "m.1", "1700000000",
      "a dot in" },

    { "hmac-sha256", FOX_HEX, NULL, NULL, NULL },
    { "hmac-sha256", FOX_HEX "," HEX("00"), NULL, NULL, NULL },
    { "hmac-sha256", HEX("00") ", " FOX_HEX, NULL, NULL, NULL },
    { "hmac-sha256", HEX("00") "," HEX("11"), NULL, NULL,
      "wrong signature in" },
    { "hmac-sha256", "sha256=" FOX_HEX, NULL, NULL, "no signature in" },

    { NULL, NULL, NULL, NULL, NULL }
};


static void
test_headers(void)
{
    vector_t                            v;
    header_t                           *h;
    ngx_int_t                           rc;
    ngx_http_iothub_signature_t         signature;
    ngx_http_iothub_signature_shown_t   shown;

    for (h = headers; h->scheme; h++) {
        ngx_memzero(&v, sizeof(vector_t));

        v.scheme = str(h->scheme);
        v.now = 1700000000;
        v.part[KEY] = str(h->scheme[1] == 't' && h->scheme[2] == 'a'
                          ? "whsec_a2V5" : "key");
        v.part[BODY] = str(FOX);

        if (h->scheme[0] == 'h') {
            v.parameters[0] = str("header=X");
            v.nparameters = 1;
        }

        v.part[VALUE] = str(h->value ? h->value : "");
        v.part[ID] = str(h->id ? h->id : "");
        v.part[TIME] = str(h->time ? h->time : "");

        rc = configure(&signature, &v);

        if (rc == NGX_OK) {
            rc = verify_in(&signature, &v, 1000, &shown);
        }

        is(rc, h->fault ? NGX_DECLINED : NGX_OK, "%s: %s", h->scheme,
           h->value ? h->value : "none");

        if (rc == NGX_DECLINED && h->fault) {
            ok(ngx_strcmp(shown.fault, h->fault) == 0 && shown.header
               && shown.header->len,
               "... %s (%s)", h->fault, shown.fault);
        }
    }
}


/* both ways, up to the second; what is off is told with its sign */

static void
test_tolerance(void)
{
    vector_t                           v;
    ngx_uint_t                         i;
    ngx_http_iothub_signature_t        signature;
    ngx_http_iothub_signature_shown_t  shown;

    static struct {
        const char  *tolerance;
        time_t       off;
        ngx_int_t    rc;
    } cases[] = {
        { NULL, 300, NGX_OK },              { NULL, 301, NGX_DECLINED },
        { NULL, -300, NGX_OK },             { NULL, -301, NGX_DECLINED },
        { "tolerance=1", 1, NGX_OK },       { "tolerance=1", 2, NGX_DECLINED },
        { "tolerance=1", -1, NGX_OK },      { "tolerance=1", -2, NGX_DECLINED },
        { "tolerance=1h", 3600, NGX_OK },   { "tolerance=1h", 3601,
                                              NGX_DECLINED },
        { "tolerance=60y", 1500000000, NGX_OK },
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ngx_memzero(&v, sizeof(vector_t));

        v.scheme = str("stripe");
        v.part[KEY] = str("key");
        v.part[VALUE] = str("t=1700000000,v1=" STRIPE_HEX);
        v.part[BODY] = str(FOX);
        v.now = 1700000000 + cases[i].off;

        if (cases[i].tolerance) {
            v.parameters[0] = str(cases[i].tolerance);
            v.nparameters = 1;
        }

        is(configure(&signature, &v), NGX_OK, "tolerance");
        is(verify_in(&signature, &v, 1000, &shown), cases[i].rc,
           "... %s and %d s off", cases[i].tolerance ? cases[i].tolerance
                                                     : "of the scheme",
           (int) cases[i].off);

        if (cases[i].rc != NGX_OK) {
            is(shown.off, cases[i].off, "... which is told");
        }
    }
}


static void
test_rotation(void)
{
    vector_t                           v;
    ngx_uint_t                         i;
    ngx_http_iothub_signature_t        signature;
    ngx_http_iothub_signature_shown_t  shown;

    static const char  *files[] = {
        "key\n", "key", "\xEF\xBB\xBFkey\r\n", "old\nkey\nnew\n",
        "# old\n\n  key  \nnew", "a\nb\nc\nd\ne\nf\ng\nh\ni\nkey\n",
        "key\nkey\n", NULL
    };

    ngx_memzero(&v, sizeof(vector_t));

    v.scheme = str("github");
    v.part[VALUE] = str("sha256=" FOX_HEX);
    v.part[BODY] = str(FOX);

    for (i = 0; files[i]; i++) {
        v.part[KEY] = str(files[i]);
        is(verify(&v), NGX_OK, "one of the file's lines, %u", (unsigned) i);
    }

    v.part[KEY] = str("old\nnew\n#key\n");
    is(verify(&v), NGX_DECLINED, "none of the file's lines");

    /* no keys let nobody in, and cost nothing */

    v.part[KEY] = str("key");
    is(configure(&signature, &v), NGX_OK, "configured");
    signature.keys.nelts = 0;
    is(verify_in(&signature, &v, 1000, &shown), NGX_DECLINED, "no keys");
}


typedef struct {
    const char  *scheme;
    const char  *parameter;
    const char  *reason;    /* a part of it, "": none, NULL: accepted */
} parameter_t;


static parameter_t  parameters[] = {
    { "github", "header=X-Gitea-Signature", NULL },
    { "github", "header=", "no header has such a name" },
    { "github", "header=X Y", "no header has such a name" },
    { "github", "header=X:", "no header has such a name" },
    { "github", "header=\xC3\xA9", "no header has such a name" },
    { "github", "prefix=x", "only \"hmac-sha256\" takes another" },
    { "github", "prefix=sha256=", NULL },
    { "github", "encoding=hex", NULL },
    { "github", "encoding=base64", "only \"hmac-sha256\" takes another" },
    { "github", "tolerance=5m", "the scheme signs no time" },
    { "github", "tolerances=5m", "" },
    { "github", "", "" },
    { "github", "header", "" },
    { "stripe", "header=X", NULL },
    { "stripe", "tolerance=1h 30m", NULL },
    { "stripe", "tolerance=0", "longer than nothing" },
    { "stripe", "tolerance=", "longer than nothing" },
    { "stripe", "tolerance=-1", "longer than nothing" },
    { "stripe", "tolerance=soon", "longer than nothing" },
    { "stripe", "tolerance=500ms", "longer than nothing" },
    { "stripe", "prefix=", "only \"hmac-sha256\"" },
    { "standard-webhooks", "header=Svix-Signature", NULL },
    { "standard-webhooks", "header=-signature", "must end in" },
    { "standard-webhooks", "header=X-Sig", "must end in" },
    { "standard-webhooks", "encoding=base64", NULL },
    { "standard-webhooks", "encoding=hex", "only \"hmac-sha256\"" },
    { "hmac-sha256", "prefix=", NULL },
    { "hmac-sha256", "prefix=a b, c", NULL },
    { "hmac-sha256", "prefix= a", "must not start with" },
    { "hmac-sha256", "prefix=,", "must not start with" },
    { "hmac-sha256", "prefix=a\tb", "control characters" },
    { "hmac-sha256", "encoding=hex", NULL },
    { "hmac-sha256", "encoding=base64", NULL },
    { "hmac-sha256", "encoding=base64url", "\"encoding=hex\" or" },
    { "hmac-sha256", "encoding=", "\"encoding=hex\" or" },
    { "hmac-sha256", "tolerance=5m", "the scheme signs no time" },
    { NULL, NULL, NULL }
};


static void
test_parameters(void)
{
    ngx_int_t                     rc;
    ngx_str_t                     name, text;
    const char                   *reason;
    parameter_t                  *p;
    ngx_http_iothub_signature_t   signature;

    for (p = parameters; p->scheme; p++) {
        name = str(p->scheme);
        text = str(p->parameter);
        text = copy(&text);

        is(ngx_http_iothub_signature_init(pool, &signature, &name), NGX_OK,
           "scheme %s", p->scheme);

        rc = ngx_http_iothub_signature_set(pool, &signature, &text, &reason);

        is(rc, p->reason ? NGX_DECLINED : NGX_OK, "... %s", p->parameter);
        ok(p->reason == NULL
           || (*p->reason ? reason && ngx_strstr(reason, p->reason)
                          : reason == NULL),
           "... reason: %s", reason ? reason : "none");

        if (rc == NGX_OK) {
            rc = ngx_http_iothub_signature_set(pool, &signature, &text,
                                               &reason);
            is(rc, NGX_DECLINED, "... not twice");
            ok(reason == NULL, "... reason: %s", reason ? reason : "none");
        }

        free(text.data);
    }

    name = str("githu");
    is(ngx_http_iothub_signature_init(pool, &signature, &name), NGX_DECLINED,
       "an unknown scheme");
    name = str("");
    is(ngx_http_iothub_signature_init(pool, &signature, &name), NGX_DECLINED,
       "no scheme");

    name = str("standard-webhooks");
    text = str("header=Svix-Signature");
    text = copy(&text);

    (void) ngx_http_iothub_signature_init(pool, &signature, &name);
    (void) ngx_http_iothub_signature_set(pool, &signature, &text, &reason);

    is_str(&signature.headers[0], "svix-signature", "names in lower case");
    is_str(&signature.headers[1], "svix-id", "... the id's");
    is_str(&signature.headers[2], "svix-timestamp", "... the time's");

    free(text.data);
}


typedef struct {
    const char  *scheme;
    const char  *text;
    size_t       len;
    ngx_uint_t   line;
    const char  *reason;
} file_t;


static file_t  refused[] = {
    { "github", "", 0, 0, "no secret in it" },
    { "stripe", "#s3cret\n\n", 9, 0, "no secret in it" },
    { "github", "a\ns3c\0ret\n", 10, 2, "control character" },
    { "github", "s3c\033ret\n", 8, 1, "control character" },
    { "standard-webhooks", "whsec_", 6, 1, "not base64 after" },
    { "standard-webhooks", "\nwhsec_s3cret!!\n", 16, 2, "not base64 after" },
    { "standard-webhooks", "whsec_s3cre\n", 12, 1, "not base64 after" },
    { "standard-webhooks", "whpk_s3cret==\n", 14, 1, "an ed25519 key" },
    { "standard-webhooks", "whsk_s3cret==\n", 14, 1, "an ed25519 key" },
    { NULL, NULL, 0, 0, NULL }
};


static void
test_files(void)
{
    file_t                       *f;
    ngx_str_t                     name, text;
    ngx_uint_t                    line;
    const char                   *reason;
    ngx_http_iothub_signature_t   signature;

    for (f = refused; f->scheme; f++) {
        name = str(f->scheme);
        text.data = (u_char *) f->text;
        text.len = f->len;
        text = copy(&text);
        line = 77;
        reason = NULL;

        (void) ngx_http_iothub_signature_init(pool, &signature, &name);

        is(ngx_http_iothub_signature_parse_keys(pool, &signature, &text,
                                                &reason, &line),
           NGX_DECLINED, "%s: refused", f->scheme);
        is(line, f->line, "... in line %u", (unsigned) f->line);
        ok(reason && ngx_strstr(reason, f->reason)
           && !ngx_strstr(reason, "s3c"), "... reason: %s",
           reason ? reason : "none");

        free(text.data);
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

    ok(test_vectors() > 0, "vectors were there");
    test_headers();
    test_tolerance();
    test_rotation();
    test_parameters();
    test_files();

    ngx_destroy_pool(pool);

    return done_testing();
}
