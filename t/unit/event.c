
/* Copyright (C) the ngx_http_iothub_module authors */

/* Unit test of the event room. */

#include "tap.h"

#include <time.h>

#include "ngx_http_iothub_event.h"


#define ID    "3e003f000547343233323032"
#define TIME  "2016-12-02T02:12:28.825Z"


typedef ngx_http_iothub_event_t  event_t;
typedef ngx_http_iothub_value_t  value_t;


typedef struct {
    const char  *text;
    const char  *want;        /* NULL: no time */
    ngx_uint_t   subsecond;
} time_case_t;


static ngx_pool_t  *pool;


/* a copy of its own, so that a sanitizer sees a step out of it */

static ngx_str_t
bytes(const char *text, size_t len)
{
    ngx_str_t  s;

    s.len = len;
    s.data = ngx_pnalloc(pool, len + 1);
    s.data += 1;

    ngx_memcpy(s.data, text, len);

    return s;
}


static ngx_str_t
str(const char *text)
{
    return bytes(text, strlen(text));
}


static value_t
json(ngx_http_iothub_type_e type, const char *raw, const char *text)
{
    value_t  v;

    ngx_memzero(&v, sizeof(value_t));

    v.type = type;
    v.json = 1;
    v.raw = str(raw);

    if (text) {
        v.text = str(text);

    } else {
        v.escaped = 1;
    }

    return v;
}


static value_t
form(const char *raw, const char *text)
{
    value_t  v;

    ngx_memzero(&v, sizeof(value_t));

    v.type = NGX_HTTP_IOTHUB_STRING;
    v.raw = str(raw);
    v.text = str(text);

    return v;
}


static void
sample(event_t *ev)
{
    ngx_memzero(ev, sizeof(event_t));

    ev->device_id = str(ID);
    ev->name = str("temperature");
    ev->published_at = str(TIME);
    ev->data = form("70", "70");
    ev->has_data = 1;
}


static ngx_uint_t
id_valid(const char *text, size_t len)
{
    ngx_str_t    s;
    ngx_uint_t   rc;
    const char  *reason;

    s = bytes(text, len);
    reason = NULL;
    rc = ngx_http_iothub_event_device_id_valid(&s, &reason);

    if (rc == (reason != NULL)) {
        ok(0, "a refused id has a reason, and no other");
    }

    return rc;
}


static void
test_device_id(void)
{
    int         c;
    char        text[200], u;
    ngx_uint_t  wrong;

    static const char  allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
        "-:.+%_#*?!(),=@;$'";

    ok(id_valid(ID, strlen(ID)), "a Particle id");
    ok(id_valid("api", 3), "api");
    ok(id_valid("A-.:+%_#*?!(),=@;$'z", 20), "all specials");
    ok(id_valid("dev:864475044204278", 19), "a Blues id");
    ok(!id_valid("", 0), "empty");
    ok(!id_valid(".", 1), ".");
    ok(!id_valid("..", 2), "..");
    ok(id_valid("...", 3), "... is no dot segment");
    ok(id_valid(".a", 2), ".a");
    ok(id_valid("a.", 2), "a.");
    ok(!id_valid("invalid/name", 12), "a slash");
    ok(!id_valid("a\0b", 3), "a NUL");
    ok(!id_valid("caf\xc3\xa9", 5), "UTF-8");

    memset(text, 'x', sizeof(text));
    ok(id_valid(text, 128), "128 characters");
    ok(!id_valid(text, 129), "129 characters");
    ok(id_valid("x", 1), "1 character");

    wrong = 0;

    for (c = 0; c < 256; c++) {
        u = (char) c;
        text[1] = u;

        if (id_valid(text, 3)
            != (c != 0 && strchr(allowed, c) != NULL))
        {
            note("byte %d", c);
            wrong++;
        }
    }

    is(wrong, 0, "each byte");
}


static void
test_controls(void)
{
    int         c;
    char        text[3];
    ngx_str_t   s;
    ngx_uint_t  wrong;

    wrong = 0;

    for (c = 0; c < 256; c++) {
        text[0] = 'a';
        text[1] = 'b';
        text[2] = (char) c;

        s = bytes(text, 3);

        if (ngx_http_iothub_event_has_controls(&s) != (c < 0x20 || c == 0x7f))
        {
            note("byte %d", c);
            wrong++;
        }
    }

    is(wrong, 0, "controls: each byte");

    s = str("\nab");
    ok(ngx_http_iothub_event_has_controls(&s), "controls: the first byte");

    ngx_str_null(&s);
    ok(!ngx_http_iothub_event_has_controls(&s), "controls: none");
}


static const time_case_t  times[] = {

    /* ISO 8601 */

    { "2016-12-02T02:12:28.825Z", "2016-12-02T02:12:28.825Z", 1 },
    { "2016-12-02T02:12:28Z", "2016-12-02T02:12:28.000Z", 0 },
    { "2016-12-02T02:12Z", "2016-12-02T02:12:00.000Z", 0 },
    { "2016-12-02t02:12:28z", "2016-12-02T02:12:28.000Z", 0 },
    { "2016-12-02 02:12:28Z", "2016-12-02T02:12:28.000Z", 0 },
    { "2016-12-02 02:12:28", "2016-12-02T02:12:28.000Z", 0 },
    { "2016-12-02T02:12:28", "2016-12-02T02:12:28.000Z", 0 },
    { "2016-12-02T02:12:28.825", "2016-12-02T02:12:28.825Z", 1 },
    { "20161202T021228Z", "2016-12-02T02:12:28.000Z", 0 },
    { "20161202T0212Z", "2016-12-02T02:12:00.000Z", 0 },
    { "20161202T021208Z", "2016-12-02T02:12:08.000Z", 0 },
    { "20161202T021228.5Z", "2016-12-02T02:12:28.500Z", 1 },
    { "20161202T021228-0130", "2016-12-02T03:42:28.000Z", 0 },

    /* fractions: cut, of any length */

    { "2016-12-02T02:12:28.8Z", "2016-12-02T02:12:28.800Z", 1 },
    { "2016-12-02T02:12:28.82Z", "2016-12-02T02:12:28.820Z", 1 },
    { "2016-12-02T02:12:28,825Z", "2016-12-02T02:12:28.825Z", 1 },
    { "2016-12-02T02:12:28.8259999Z", "2016-12-02T02:12:28.825Z", 1 },
    { "2016-12-02T23:59:59.99999999999999999999999999999999999999999999Z",
      "2016-12-02T23:59:59.999Z", 1 },
    { "2026-06-26T14:30:00.000Z", "2026-06-26T14:30:00.000Z", 1 },
    { "2026-06-26T14:30:00.0005Z", "2026-06-26T14:30:00.000Z", 1 },
    { "2016-12-02T02:12:28.Z", NULL, 0 },
    { "2016-12-02T02:12:28.", NULL, 0 },
    { "2016-12-02T02:12.5Z", NULL, 0 },

    /* zones */

    { "2016-12-02T02:12:28+01:00", "2016-12-02T01:12:28.000Z", 0 },
    { "2016-12-02T02:12:28-01:00", "2016-12-02T03:12:28.000Z", 0 },
    { "2016-12-02T02:12:28+0530", "2016-12-01T20:42:28.000Z", 0 },
    { "2016-12-02T02:12:28+14", "2016-12-01T12:12:28.000Z", 0 },
    { "2016-12-31T23:30:00.5-00:45", "2017-01-01T00:15:00.500Z", 1 },
    { "2016-03-01T00:15:00+00:30", "2016-02-29T23:45:00.000Z", 0 },
    { "2015-03-01T00:15:00+00:30", "2015-02-28T23:45:00.000Z", 0 },
    { "2016-12-02T02:12:28-00:00", "2016-12-02T02:12:28.000Z", 0 },
    { "2016-12-02T02:12:28+23:59", "2016-12-01T02:13:28.000Z", 0 },
    { "2016-12-02 02:12:28 +0100", "2016-12-02T01:12:28.000Z", 0 },
    { "2016-12-02T02:12:28 01:00", "2016-12-02T01:12:28.000Z", 0 },
    { "2016-12-02 02:12:28 Z", "2016-12-02T02:12:28.000Z", 0 },
    { "2016-12-02T02:12+01:00", "2016-12-02T01:12:00.000Z", 0 },
    { "2016-12-02T02:12:28+24:00", NULL, 0 },
    { "2016-12-02T02:12:28+01:60", NULL, 0 },
    { "2016-12-02T02:12:28+1", NULL, 0 },
    { "2016-12-02T02:12:28+01:", NULL, 0 },
    { "2016-12-02T02:12:28+01:0", NULL, 0 },
    { "2016-12-02T02:12:28+01:000", NULL, 0 },
    { "2016-12-02T02:12:28+-1:00", NULL, 0 },
    { "2016-12-02T02:12:28--01:00", NULL, 0 },
    { "2016-12-02T02:12:28 ", NULL, 0 },
    { "2016-12-02T02:12:28 UTC", NULL, 0 },
    { "2016-12-02T02:12:28ZZ", NULL, 0 },
    { "2016-12-02T02:12:28Z ", NULL, 0 },
    { " 2016-12-02T02:12:28Z", NULL, 0 },

    /* the calendar */

    { "2016-02-29T00:00:00Z", "2016-02-29T00:00:00.000Z", 0 },
    { "2000-02-29T00:00:00Z", "2000-02-29T00:00:00.000Z", 0 },
    { "2015-02-29T00:00:00Z", NULL, 0 },
    { "2100-02-29T00:00:00Z", NULL, 0 },
    { "2016-04-31T00:00:00Z", NULL, 0 },
    { "2016-12-31T00:00:00Z", "2016-12-31T00:00:00.000Z", 0 },
    { "2016-12-32T00:00:00Z", NULL, 0 },
    { "2016-13-01T00:00:00Z", NULL, 0 },
    { "2016-00-01T00:00:00Z", NULL, 0 },
    { "2016-01-00T00:00:00Z", NULL, 0 },
    { "2016-01-01T24:00:00Z", NULL, 0 },
    { "2016-01-01T23:60:00Z", NULL, 0 },
    { "2016-01-01T23:59:61Z", NULL, 0 },
    { "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z", 0 },
    { "1969-12-31T23:59:59.999Z", NULL, 0 },
    { "1969-12-31T23:30:00-01:00", "1970-01-01T00:30:00.000Z", 0 },
    { "1970-01-01T00:30:00+01:00", NULL, 0 },
    { "1968-12-31T23:30:00-01:00", NULL, 0 },
    { "0001-01-01T00:00:00Z", NULL, 0 },
    { "9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z", 1 },
    { "9999-12-31T23:59:59-00:01", NULL, 0 },
    { "9999-12-31T23:59:60Z", NULL, 0 },

    /* leap seconds */

    { "2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000Z", 0 },
    { "2016-12-31T23:59:60.25Z", "2017-01-01T00:00:00.250Z", 1 },
    { "2017-01-01T00:59:60+01:00", "2017-01-01T00:00:00.000Z", 0 },
    { "2016-12-31T23:58:60Z", NULL, 0 },
    { "2016-12-31T23:59:60+01:00", NULL, 0 },

    /* epoch */

    { "1480644748", "2016-12-02T02:12:28.000Z", 0 },
    { "1480644748.825", "2016-12-02T02:12:28.825Z", 1 },
    { "1480644748.8", "2016-12-02T02:12:28.800Z", 1 },
    { "1480644748,82599", "2016-12-02T02:12:28.825Z", 1 },
    { "1480644748825", "2016-12-02T02:12:28.825Z", 1 },
    { "1480644748825.9", "2016-12-02T02:12:28.825Z", 1 },
    { "1480644748000", "2016-12-02T02:12:28.000Z", 1 },
    { "0", "1970-01-01T00:00:00.000Z", 0 },
    { "253402300799", "9999-12-31T23:59:59.000Z", 0 },
    { "253402300800", NULL, 0 },
    { "999999999999", NULL, 0 },
    { "9999999999999", "2286-11-20T17:46:39.999Z", 1 },
    { "14806447488251", NULL, 0 },
    { "1480644748825123", NULL, 0 },
    { "99999999999999999999999999999999999999999", NULL, 0 },
    { "1480644748.", NULL, 0 },
    { "1480644748.Z", NULL, 0 },
    { "1480644748.5Z", NULL, 0 },
    { ".5", NULL, 0 },
    { "-1", NULL, 0 },
    { "+1480644748", NULL, 0 },
    { "1.48e9", NULL, 0 },
    { "1480644748Z", NULL, 0 },
    { "1480644748 ", NULL, 0 },

    /* no times */

    { "", NULL, 0 },
    { "now", NULL, 0 },
    { "2016-12-02", NULL, 0 },
    { "2016-12-02T", NULL, 0 },
    { "2016-12-02T02", NULL, 0 },
    { "2016-12-02T02Z", NULL, 0 },
    { "2016-12-02T02:", NULL, 0 },
    { "2016-12-02T02:1", NULL, 0 },
    { "2016-12-02T02:12:", NULL, 0 },
    { "2016-12-02T02:12:2", NULL, 0 },
    { "2016-12-02T02:12:2Z", NULL, 0 },
    { "2016-12-02T0212:28Z", NULL, 0 },
    { "2016-12-02T02:1228Z", NULL, 0 },
    { "2016-1202T02:12:28Z", NULL, 0 },
    { "201612-02T02:12:28Z", NULL, 0 },
    { "20161202T02:12:28Z", NULL, 0 },
    { "20161202 021228", "2016-12-02T02:12:28.000Z", 0 },
    { "2016/12/02T02:12:28Z", NULL, 0 },
    { "16-12-02T02:12:28Z", NULL, 0 },
    { "02016-12-02T02:12:28Z", NULL, 0 },
    { "2016-12-02_02:12:28Z", NULL, 0 },
    { "2016-12-0202:12:28Z", NULL, 0 },
    { "2016-12-02T02:12:2801:00", NULL, 0 },
    { "2016-1a-02T02:12:28Z", NULL, 0 },
    { "Fri, 02 Dec 2016 02:12:28 GMT", NULL, 0 },
    { "2016-W48-5T02:12:28Z", NULL, 0 }
};


static void
test_time(void)
{
    u_char       buf[NGX_HTTP_IOTHUB_EVENT_TIME_LEN + 1];
    ngx_int_t    rc;
    ngx_str_t    s, out;
    ngx_uint_t   i, subsecond;

    for (i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        s = str(times[i].text);

        buf[NGX_HTTP_IOTHUB_EVENT_TIME_LEN] = '!';
        out.data = buf;
        out.len = 99;
        subsecond = 99;

        rc = ngx_http_iothub_event_time(&s, &out, &subsecond);

        if (times[i].want == NULL) {
            ok(rc == NGX_DECLINED && out.len == 0 && subsecond == 0,
               "\"%s\" is no time", times[i].text);
            continue;
        }

        ok(rc == NGX_OK
           && out.len == NGX_HTTP_IOTHUB_EVENT_TIME_LEN
           && memcmp(buf, times[i].want, out.len) == 0
           && buf[NGX_HTTP_IOTHUB_EVENT_TIME_LEN] == '!'
           && subsecond == times[i].subsecond,
           "\"%s\" is %s", times[i].text, times[i].want);
    }

    ngx_str_null(&s);
    out.data = buf;
    is(ngx_http_iothub_event_time(&s, &out, &subsecond), NGX_DECLINED,
       "no text is no time");
}


/* every fifth day of 1970 to 9999, against the C library */

static void
test_calendar(void)
{
    u_char      buf[NGX_HTTP_IOTHUB_EVENT_TIME_LEN];
    char        text[64], epoch[64];
    time_t      t;
    ngx_str_t   s, out;
    struct tm   tm;
    ngx_uint_t  wrong, subsecond;

    wrong = 0;
    out.data = buf;

    for (t = 12345; t <= 253402300799; t += 5 * 86400 + 7) {
        gmtime_r(&t, &tm);
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);

        s.data = (u_char *) text;
        s.len = strlen(text);

        if (ngx_http_iothub_event_time(&s, &out, &subsecond) != NGX_OK
            || memcmp(buf, text, 19) != 0)
        {
            wrong++;
        }

        s.data = (u_char *) epoch;
        s.len = sprintf(epoch, "%lld", (long long) t);

        if (ngx_http_iothub_event_time(&s, &out, &subsecond) != NGX_OK
            || memcmp(buf, text, 19) != 0)
        {
            wrong++;
        }
    }

    is(wrong, 0, "the calendar of the C library");
}


static ngx_uint_t
is_hex(ngx_str_t *s)
{
    size_t  i;

    for (i = 0; i < s->len; i++) {
        if (!strchr("0123456789abcdef", s->data[i])) {
            return 0;
        }
    }

    return 1;
}


static ngx_str_t
message_id(event_t *ev)
{
    ngx_str_t  id;

    ngx_str_null(&id);

    is(ngx_http_iothub_event_set_time(pool, ev), NGX_OK, "its time");
    is(ngx_http_iothub_event_message_id(pool, ev, &id), NGX_OK,
       "a message id");

    return id;
}


static void
test_message_id(void)
{
    char       text[129];
    event_t    ev;
    ngx_str_t  id, other;

    sample(&ev);

    id = message_id(&ev);
    is_str(&id, "571db4aea02c302ab6265cc569e02728"
                "668c690054fbc2c141b9047070be8468", "hash of the event");

    other = message_id(&ev);
    ok(id.len == other.len && memcmp(id.data, other.data, id.len) == 0,
       "the same for a repeat");

    ev.has_data = 0;
    id = message_id(&ev);
    is_str(&id, "8ef03073406b7d742933e99804ce1cd7"
                "d7fd1ad13f76c1944ac9b75dda75ffc8", "absent data");

    ev.has_data = 1;
    ev.data = form("", "");
    id = message_id(&ev);
    is_str(&id, "974b786825ec75bcedfa774e668f7d8a"
                "b1b48ca6d5bd798ac8bb07e0ccd8b328", "empty data");

    ev.data = json(NGX_HTTP_IOTHUB_STRING, "\"70\"", "70");
    id = message_id(&ev);
    is_str(&id, "8e63f582bfad882f7998caf4d041eb0f"
                "be112d522cf7f5a11e4ddf0f869e4860", "JSON data: its raw bytes");

    ev.data = form("%37%30", "70");
    id = message_id(&ev);
    is_str(&id, "571db4aea02c302ab6265cc569e02728"
                "668c690054fbc2c141b9047070be8468", "form data: its text");

    ngx_str_null(&ev.name);
    id = message_id(&ev);
    is_str(&id, "f602bb3d5e545ca0e86c75eb8e244ca7"
                "472b06d74d095873c6c08358ed73c06b", "without a name");

    sample(&ev);
    ev.published_at = str("1480644748825");
    id = message_id(&ev);
    is_str(&id, "115f23ae1e9b7a9eeda72fe21d3ee529"
                "e0ce51a6617988e15e17164815e5a61b",
           "milliseconds: the sender's text");

    /* random */

    ev.published_at = str("2016-12-02T02:12:28Z");
    id = message_id(&ev);
    other = message_id(&ev);
    is(id.len, 32, "whole seconds: 32 digits");
    ok(id.len == 32 && is_hex(&id), "hexadecimal ones");
    ok(id.len == other.len && memcmp(id.data, other.data, id.len) != 0,
       "other ones each time");

    ngx_str_null(&ev.published_at);
    id = message_id(&ev);
    is(id.len, 32, "no time: 32 digits");

    ev.published_at = str("soon.123");
    id = message_id(&ev);
    is(id.len, 32, "what is no time: 32 digits");

    /* the sender's */

    sample(&ev);
    ev.message_id = str("A-:.+%_#*?!(),=@;$'z");
    id = message_id(&ev);
    is_str(&id, "A-:.+%_#*?!(),=@;$'z", "the sender's id");
    ok(id.data == ev.message_id.data, "in place");

    ev.message_id = str(".");
    id = message_id(&ev);
    is_str(&id, ".", "a dot is a message id");

    ev.message_id = str("");
    id = message_id(&ev);
    is(id.len, 64, "an empty id is none");

    ev.message_id = str("a/b");
    id = message_id(&ev);
    is_str(&id, "c9d2a281f34f1266b9d4c005960dba0e"
                "63e8a2bb99084c2e4797642a2f9bcb43", "an id that is not legal");

    memset(text, 'x', sizeof(text));
    ev.message_id = bytes(text, 128);
    id = message_id(&ev);
    is(id.len, 128, "an id of 128 characters");

    ev.message_id = bytes(text, 129);
    id = message_id(&ev);
    is_str(&id, "36a75ccf4cd9cbf65b52fb07e0855e0c"
                "eff95634523c9c54c87ef8be8874634b", "an id of 129 characters");
}


static void
body_is(event_t *ev, ngx_uint_t data_as_json, const char *want,
    const char *what)
{
    ngx_str_t  out;

    ngx_str_null(&out);

    if (ngx_http_iothub_event_body(pool, ev, data_as_json, &out, NULL, NULL)
        != NGX_OK)
    {
        ok(0, "%s", what);
        return;
    }

    is_str(&out, want, "%s", what);
}


#define REST  ",\"device_id\":\"" ID "\",\"event\":\"temperature\","          \
              "\"published_at\":\"" TIME "\""


static void
test_body(void)
{
    event_t  ev;

    sample(&ev);
    body_is(&ev, 0, "{\"data\":\"70\"" REST "}", "a form");
    body_is(&ev, 1, "{\"data\":70" REST "}", "a form, data as JSON");

    ev.fw_version = form("1", "1");
    ev.has_fw_version = 1;
    body_is(&ev, 0, "{\"data\":\"70\"" REST ",\"fw_version\":\"1\"}",
            "fw_version");
    body_is(&ev, 1, "{\"data\":70" REST ",\"fw_version\":\"1\"}",
            "fw_version is no data");

    ev.fw_version = json(NGX_HTTP_IOTHUB_NUMBER, "12", "12");
    body_is(&ev, 0, "{\"data\":\"70\"" REST ",\"fw_version\":12}",
            "fw_version, a number");

    ev.has_fw_version = 0;
    ev.has_data = 0;
    body_is(&ev, 0, "{\"data\":null" REST "}", "no data");
    body_is(&ev, 1, "{\"data\":null" REST "}", "no data as JSON");

    ev.has_data = 1;
    ev.data = form("", "");
    body_is(&ev, 0, "{\"data\":\"\"" REST "}", "empty data");
    body_is(&ev, 1, "{\"data\":\"\"" REST "}", "empty data is no JSON");

    ev.data = form("..", "a\"b\\c\n\x01\x19/\x7f \xc3\xa9\xf0\x9f\x98\x80");
    body_is(&ev, 0, "{\"data\":\"a\\\"b\\\\c\\n\\u0001\\u0019/\x7f "
                    "\xc3\xa9\xf0\x9f\x98\x80\"" REST "}",
            "escapes, and UTF-8 as it is");

    ev.data = form("..", "{\"count\": 5}");
    body_is(&ev, 0, "{\"data\":\"{\\\"count\\\": 5}\"" REST "}",
            "JSON in a form");
    body_is(&ev, 1, "{\"data\":{\"count\": 5}" REST "}",
            "JSON in a form, as JSON");

    ev.data = form("..", " [1, 2]\r\n");
    body_is(&ev, 1, "{\"data\":[1, 2]" REST "}", "without blanks around it");

    ev.data = form("..", "{\"count\":5");
    body_is(&ev, 1, "{\"data\":\"{\\\"count\\\":5\"" REST "}",
            "what is no JSON stays a string");

    ev.data = form("..", "{\"a\":1,\"a\":2}");
    body_is(&ev, 1, "{\"data\":\"{\\\"a\\\":1,\\\"a\\\":2}\"" REST "}",
            "so do duplicate members");

    /* the sender's bytes */

    ev.data = json(NGX_HTTP_IOTHUB_NUMBER, "18446744073709551616",
                   "18446744073709551616");
    body_is(&ev, 0, "{\"data\":18446744073709551616" REST "}", "a number");

    ev.data = json(NGX_HTTP_IOTHUB_OBJECT, "{\"b\": 0.10, \"a\": 1e2}",
                   "{\"b\": 0.10, \"a\": 1e2}");
    body_is(&ev, 0, "{\"data\":{\"b\": 0.10, \"a\": 1e2}" REST "}",
            "an object");
    body_is(&ev, 1, "{\"data\":{\"b\": 0.10, \"a\": 1e2}" REST "}",
            "an object as JSON");

    ev.data = json(NGX_HTTP_IOTHUB_NULL, "null", "null");
    body_is(&ev, 0, "{\"data\":null" REST "}", "null");

    ev.data = json(NGX_HTTP_IOTHUB_TRUE, "true", "true");
    body_is(&ev, 1, "{\"data\":true" REST "}", "true");

    ev.data = json(NGX_HTTP_IOTHUB_STRING, "\"\\u0061\\/\\n\"", NULL);
    body_is(&ev, 0, "{\"data\":\"\\u0061\\/\\n\"" REST "}",
            "the sender's escapes");
    body_is(&ev, 1, "{\"data\":\"\\u0061\\/\\n\"" REST "}",
            "the same where it is no JSON");

    ev.data = json(NGX_HTTP_IOTHUB_STRING, "\"{\\\"count\\\":5}\"", NULL);
    body_is(&ev, 0, "{\"data\":\"{\\\"count\\\":5}\"" REST "}",
            "JSON in a string");
    body_is(&ev, 1, "{\"data\":{\"count\":5}" REST "}",
            "JSON in a string, as JSON");

    ev.data = json(NGX_HTTP_IOTHUB_STRING, "\"70\"", "70");
    body_is(&ev, 0, "{\"data\":\"70\"" REST "}", "a string");
    body_is(&ev, 1, "{\"data\":70" REST "}", "a string, as JSON");

    ev.data = json(NGX_HTTP_IOTHUB_STRING, "\"\\\"70\\\"\"", NULL);
    body_is(&ev, 1, "{\"data\":\"70\"" REST "}", "a string in a string");

    /* what is absent, what is empty */

    ngx_str_null(&ev.name);
    ngx_str_null(&ev.published_at);
    body_is(&ev, 1, "{\"data\":\"70\",\"device_id\":\"" ID "\","
                    "\"event\":null,\"published_at\":null}", "absent fields");

    ev.name = str("");
    ev.published_at = str("");
    body_is(&ev, 1, "{\"data\":\"70\",\"device_id\":\"" ID "\","
                    "\"event\":\"\",\"published_at\":\"\"}", "empty fields");

    ev.device_id = str("a\"b");
    ev.name = str("lights \"on\"");
    ev.published_at = str("\\");
    body_is(&ev, 1, "{\"data\":\"70\",\"device_id\":\"a\\\"b\","
                    "\"event\":\"lights \\\"on\\\"\","
                    "\"published_at\":\"\\\\\"}", "escapes in fields");
}


static ngx_uint_t
name_valid(const char *text)
{
    ngx_str_t    s;
    ngx_uint_t   rc;
    const char  *reason;

    s = str(text);
    reason = NULL;
    rc = ngx_http_iothub_event_property_name_valid(&s, &reason);

    if (rc == (reason != NULL)) {
        ok(0, "a refused name has a reason, and no other");
    }

    return rc;
}


static void
test_property(void)
{
    int           c;
    char          text[130];
    ngx_str_t     s;
    ngx_uint_t    i, wrong;

    static const char  token[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
        "!#$%&'*+-.^_`|~";

    static const char  *reserved[] = {
        "iothub-enqueuedtime", "iothub-messagelocktoken",
        "iothub-sequencenumber", "iothub-operation", "iothub-partition-key",
        "iothub-ack", "iothub-connection-auth-method",
        "iothub-connection-auth-generation-id", "iothub-messageid",
        "iothub-correlationid", "iothub-userid", "iothub-to",
        "iothub-contenttype", "iothub-contentencoding",
        "iothub-content-type", "iothub-content-encoding",
        "iothub-absolute-expiry-time", "iothub-methodname",
        "connectionDeviceId", "connectionModuleId", "iothub-outputname",
        "iothub-inputname", "iothub-connection-device-id",
        "iothub-connection-module-id", "iothub-creation-time-utc",
        "iothub-creationtimeutc", "IoTHub-To", "CONNECTIONDEVICEID"
    };

    ok(name_valid("event"), "a name");
    ok(name_valid("TestKey1234!#$%&'*+-^_`|~"), "a name of all kinds");
    ok(name_valid("iothub-mine"), "a name that only looks reserved");
    ok(name_valid("iothub-t"), "the start of one that is reserved");
    ok(name_valid("iothub-toe"), "more than one that is reserved");
    ok(!name_valid(""), "no name");
    ok(!name_valid("a b"), "a blank");
    ok(!name_valid("a:"), "a colon");
    ok(!name_valid("a\r\nb"), "a line end");

    for (i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
        ok(!name_valid(reserved[i]), "%s is reserved", reserved[i]);
    }

    memset(text, 'x', sizeof(text));
    text[129] = '\0';
    ok(!name_valid(text), "a name of 129 characters");
    text[128] = '\0';
    ok(name_valid(text), "a name of 128 characters");

    wrong = 0;
    text[3] = '\0';

    for (c = 1; c < 256; c++) {
        text[1] = (char) c;

        if (name_valid(text) != (strchr(token, c) != NULL)) {
            note("byte %d", c);
            wrong++;
        }
    }

    is(wrong, 0, "names: each byte");

    wrong = 0;

    for (c = 0; c < 256; c++) {
        text[1] = (char) c;
        s = bytes(text, 3);

        if (ngx_http_iothub_event_property_value_valid(&s)
            != (c == '\t' || (c >= ' ' && c <= '~')))
        {
            note("byte %d", c);
            wrong++;
        }
    }

    is(wrong, 0, "values: each byte");

    ngx_str_null(&s);
    ok(ngx_http_iothub_event_property_value_valid(&s), "values: none");
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

    test_device_id();
    test_controls();
    test_time();
    test_calendar();
    test_message_id();
    test_body();
    test_property();

    ngx_destroy_pool(pool);

    return done_testing();
}
