
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * Fuzz target of the plain room: whatever it takes for JSON, jansson does,
 * and it takes all of it.  An input is the text.
 */

#include <ngx_config.h>
#include <ngx_core.h>

#include <jansson.h>

#include "ngx_http_iothub_plain.h"


#define must(cond)  do { if (!(cond)) { __builtin_trap(); } } while (0)


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
must_be(json_t *object, ngx_http_iothub_member_t *member)
{
    json_t        *value;
    json_error_t   error;

    value = json_loadb((char *) member->value.data, member->value.len,
                       JSON_REJECT_DUPLICATES|JSON_DECODE_INT_AS_REAL
                       |JSON_DECODE_ANY, &error);

    must(value != NULL);
    must(json_equal(value, json_object_getn(object,
                                            (char *) member->name.data,
                                            member->name.len)));
    must(!member->name_escaped);
    must(!json_is_string(value)
         || member->value_escaped
            == (memchr(member->value.data, '\\', member->value.len) != NULL));
    must(json_is_string(value) || !member->value_escaped);

    json_decref(value);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t                    *json;
    ngx_str_t                  text;
    ngx_uint_t                 i, n;
    json_error_t               error;
    ngx_http_iothub_member_t   members[NGX_HTTP_IOTHUB_PLAIN_NAMES];

    /* a buffer of exact size, so that a step out of it is seen */

    text.len = size;
    text.data = malloc(size ? size : 1);
    must(text.data != NULL);

    if (size) {
        ngx_memcpy(text.data, data, size);
    }

    if (ngx_http_iothub_plain_json(&text, members, &n)) {
        must(memchr(text.data, '\0', size) == NULL);

        json = json_loadb((char *) text.data, size,
                          JSON_REJECT_DUPLICATES|JSON_DECODE_INT_AS_REAL,
                          &error);

        must(json != NULL);
        must(json_is_object(json) || json_is_array(json));

        /* and of an object all members, each from its value to its end */

        must(n == json_object_size(json));

        for (i = 0; i < n; i++) {
            must_be(json, &members[i]);
        }

        json_decref(json);
    }

    free(text.data);

    return 0;
}
