
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * Unit test of the plain room: each text is also given to jansson, which must
 * take whatever is plain.
 */

#include "tap.h"

#include <jansson.h>

#include "ngx_http_iothub_plain.h"


/* members, to have many */
#define MEMBERS_8(c)                                                          \
    "\"a" c "\":1,\"b" c "\":1,\"c" c "\":1,\"d" c "\":1,\"e" c "\":1,"       \
    "\"f" c "\":1,\"g" c "\":1,\"h" c "\":1"
#define MEMBERS_64                                                            \
    MEMBERS_8("1") "," MEMBERS_8("2") "," MEMBERS_8("3") "," MEMBERS_8("4")   \
    "," MEMBERS_8("5") "," MEMBERS_8("6") "," MEMBERS_8("7") ","              \
    MEMBERS_8("8")


static ngx_uint_t
takes(const char *text, size_t len)
{
    json_t        *json;
    json_error_t   error;

    json = json_loadb(text, len,
                      JSON_REJECT_DUPLICATES|JSON_DECODE_INT_AS_REAL, &error);

    if (json == NULL) {
        return 0;
    }

    json_decref(json);

    return 1;
}


/* a copy of exact size, so that a step out of it is seen */

static ngx_uint_t
plain(const char *data, size_t len)
{
    ngx_str_t   text;
    ngx_uint_t  rc;

    text.len = len;
    text.data = malloc(len ? len : 1);
    ngx_memcpy(text.data, data, len);

    rc = ngx_http_iothub_plain_json(&text, NULL, NULL);

    free(text.data);

    return rc;
}


static void
test_plain(void)
{
    size_t  i;

    static const char *const texts[] = {
        "{\"a\":\"\"}",
        "{\"event\":\"temp\",\"data\":\"21.5\",\"published_at\":"
            "\"2026-01-01T00:00:00.000Z\",\"coreid\":\"0123456789ab\"}",
        " \t\r\n{ \"a\" : 1 , \"b\" :\t\"x\" }\n ",
        "{\"a\":true,\"b\":false,\"c\":null}",
        "{\"a\":0,\"b\":-0,\"c\":-1.50,\"d\":10,\"e\":0.1}",
        "{\"a\":18446744073709551616}",
        "{\"a\":\"{\\\"t\\\":1,\\\\ \\/\\b\\f\\n\\r\\t}\"}",
        "{\"\":1}",
        "{\"a\":1,\"A\":1,\"aa\":1}",
        "{\"a\":\"\177\"}",
        "{\"a\":\"012345\17789 !#[]~0123456789\"}",
        "{}",
        "[]",
        " [ ] ",
        "{ }",
        "{\"a\":{},\"b\":[]}",
        "{\"a\":{\"a\":1},\"b\":{\"a\":1}}",
        "[{\"a\":1},{\"a\":1},[[]],\"x\",1,true,null , -0.5 ]",
        "{\"a\":[1, 2 ,{\"b\":[]}] , \"c\" : { \"d\" : \"e\" } }",
        "[[[[[[[[]]]]]]]]",
        "{" MEMBERS_64 "}",
        "[{" MEMBERS_64 "},{" MEMBERS_64 "}]"
    };

    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        ok(plain(texts[i], strlen(texts[i])), "plain: %s", texts[i]);
        ok(takes(texts[i], strlen(texts[i])), "jansson takes it");
    }
}


/* JSON or not, jansson is asked */

static void
test_not_plain(void)
{
    size_t  i;

    static const ngx_str_t  texts[] = {
        ngx_string(""),
        ngx_string(" "),
        ngx_string("{"),
        ngx_string("1"),
        ngx_string("\"a\""),
        ngx_string("{\"a\""),
        ngx_string("{\"a\":"),
        ngx_string("{\"a\":1"),
        ngx_string("{\"a\":1,"),
        ngx_string("{\"a\":1,}"),
        ngx_string("{\"a\":1}}"),
        ngx_string("{\"a\":1} x"),
        ngx_string("{\"a\" 1}"),
        ngx_string("{\"a\":1 \"b\":2}"),
        ngx_string("{a:1}"),
        ngx_string("{\"a\":\"}"),
        ngx_string("{\"a\":\"\\"),
        ngx_string("{\"a\":\"\\\"}"),
        ngx_string("{\"a\":\"\\u0041\"}"),
        ngx_string("{\"a\":\"\\x\"}"),
        ngx_string("{\"a\":\"\\\0\"}"),
        ngx_string("{\"a\":\"\0\"}"),
        ngx_string("{\"a\":\"\n\"}"),
        ngx_string("{\"a\":\"01234567\0\"}"),
        ngx_string("{\"a\":\"0123456\n\"}"),
        ngx_string("{\"a\":\"012\037567\"}"),
        ngx_string("{\"a\":\"0123\200567\"}"),
        ngx_string("{\"a\":\"\303\251\"}"),
        ngx_string("{\"a\":\"\303\"}"),
        ngx_string("{\"a\":1\0}"),
        ngx_string("{\"a\":true\0}"),
        ngx_string("{\"a\":01}"),
        ngx_string("{\"a\":-}"),
        ngx_string("{\"a\":+1}"),
        ngx_string("{\"a\":.5}"),
        ngx_string("{\"a\":1.}"),
        ngx_string("{\"a\":1.e1}"),
        ngx_string("{\"a\":1e1}"),
        ngx_string("{\"a\":1E400}"),
        ngx_string("{\"a\":1.5e400}"),
        ngx_string("{\"a\":12345678901234567890123456789012}"),
        ngx_string("{\"a\":1x}"),
        ngx_string("{\"a\":truex}"),
        ngx_string("{\"a\":tru}"),
        ngx_string("{\"a\":nul}"),
        ngx_string("{\"a\":NaN}"),
        ngx_string("{\"a\":1,\"a\":1}"),
        ngx_string("{\"a\":1,\"b\":1,\"a\":\"\"}"),
        ngx_string("{\"a\":1,\"\\u0061\":1}"),
        ngx_string("{\"\\n\":1}"),
        ngx_string("{" MEMBERS_64 ",\"q\":1}"),
        ngx_string("{" MEMBERS_64 ",\"q\":{\"r\":1}}"),
        ngx_string("[[[[[[[[[]]]]]]]]]"),
        ngx_string("["),
        ngx_string("[1"),
        ngx_string("[1,"),
        ngx_string("[1,]"),
        ngx_string("[,]"),
        ngx_string("[1}"),
        ngx_string("{]"),
        ngx_string("{\"a\":1]"),
        ngx_string("{\"a\":[1}"),
        ngx_string("[\"a\":1]"),
        ngx_string("{\"a\"}"),
        ngx_string("{1}"),
        ngx_string("{\"a\":}"),
        ngx_string("[1 2]"),
        ngx_string("[]]"),
        ngx_string("[][]"),
        ngx_string("{\"a\":{\"b\":1,\"b\":2}}"),
        ngx_string("[{\"a\":1,\"b\":{\"c\":1},\"a\":2}]"),
        ngx_string("\357\273\277{\"a\":1}")
    };

    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        ok(!plain((char *) texts[i].data, texts[i].len), "not plain: %s",
           texts[i].data);
    }
}


/* no part of a text is plain, and no byte may be any other one */

static void
test_changed(void)
{
    char    text[128];
    size_t  i, n, len;
    ngx_uint_t  bad;

    static const char  good[] = "{\"a\":\"x\\n\",\"b\":[-1.5,{\"d\":2}],"
                                "\"c\":true,\"e\":\"01234567890\"}";

    len = sizeof(good) - 1;

    for (i = 0; i < len; i++) {
        ok(!plain(good, i), "the first %zu bytes", i);
    }

    bad = 0;

    for (i = 0; i < len; i++) {
        for (n = 0; n < 256; n++) {
            ngx_memcpy(text, good, len);
            text[i] = (char) n;

            if (plain(text, len) && !takes(text, len)) {
                bad++;
                note("byte %zu: %zu", i, n);
            }
        }
    }

    is(bad, 0, "whatever is plain with a byte changed, jansson takes");
}


int
main(void)
{
    test_plain();
    test_not_plain();
    test_changed();

    return done_testing();
}
