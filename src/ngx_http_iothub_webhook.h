
/* Copyright (C) the ngx_http_iothub_module authors */


/*
 * webhook: body bytes -> fields.
 *
 * Checks a webhook's body, and finds what a locator says in it: members of
 * JSON, pairs of a form, pairs of the query string.  jansson validates JSON
 * and is known in this room only; what is handed out are the sender's own
 * bytes, which a second scanner (member) finds in the validated text.
 *
 * Pure: bytes in, values out.  Values are slices of the body and the query
 * string, which have to outlive them, or text decoded into the pool.  They
 * are not NUL-terminated and may hold control characters: callers check.
 * A reason given back is a constant text without any byte of the body.
 */


#ifndef _NGX_HTTP_IOTHUB_WEBHOOK_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_WEBHOOK_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_http_iothub_form.h"
#include "ngx_http_iothub_format.h"
#include "ngx_http_iothub_locator.h"
#include "ngx_http_iothub_text.h"


typedef enum {
    NGX_HTTP_IOTHUB_STRING = 0,
    NGX_HTTP_IOTHUB_NUMBER,
    NGX_HTTP_IOTHUB_TRUE,
    NGX_HTTP_IOTHUB_FALSE,
    NGX_HTTP_IOTHUB_NULL,
    NGX_HTTP_IOTHUB_OBJECT,
    NGX_HTTP_IOTHUB_ARRAY
} ngx_http_iothub_type_e;


typedef struct {
    ngx_http_iothub_type_e     type;

    /*
     * The sender's bytes.  Of JSON the value's own text, the quotes of a
     * string included; of form and query the value before decoding.
     */
    ngx_str_t                  raw;

    /*
     * The decoded text of a string, in UTF-8; of any other JSON value its
     * own text, the same as raw.
     */
    ngx_str_t                  text;

    unsigned                   json:1;     /* raw is JSON text */
    unsigned                   escaped:1;  /* raw needs decoding */
} ngx_http_iothub_value_t;


/*
 * One webhook.  Filled by ngx_http_iothub_webhook_parse(); of the rest of
 * the module only format, body, args and reason are read.
 */

typedef ngx_str_t *(*ngx_http_iothub_header_pt)(void *data, ngx_str_t *name);


typedef struct {
    ngx_pool_t                *pool;
    ngx_http_iothub_format_e   format;
    ngx_str_t                  body;
    ngx_str_t                  args;

    const char                *reason;     /* of what is malformed */

    /*
     * Set after parsing, NULL: no headers.  Returns the value of a header
     * by its lower case name, or NULL.
     */
    ngx_http_iothub_header_pt  header;
    void                      *header_data;

    ngx_str_t                  root;       /* JSON: body without blanks */
    unsigned                   element:1;  /* root is a part of the body */
    unsigned                   escaped:1;  /* a string that needs decoding */
    ngx_array_t                members;    /* JSON: of the root object */
    ngx_array_t                pairs;      /* form */
} ngx_http_iothub_webhook_t;


/*
 * Checks the whole body and makes *wh ready for lookups.  The query string
 * (args, NULL if there is none) is not checked here, as only pairs that are
 * looked up matter.  Memory that jansson used is given back at once.
 *
 * NGX_OK; NGX_DECLINED and wh->reason if the body is malformed: what
 * jansson refuses, duplicate members at any depth, \u0000, numbers that no
 * double holds, more than 2048 levels; of a form a bad percent escape, a
 * NUL, text that is not UTF-8, two pairs of one name, too many pairs.
 * NGX_ERROR if there is no memory.
 */

ngx_int_t ngx_http_iothub_webhook_parse(ngx_pool_t *pool,
    ngx_http_iothub_webhook_t *wh, ngx_http_iothub_format_e format,
    ngx_str_t *body, ngx_str_t *args);

/*
 * Finds a value.  JSON null is found, with type NULL; so is an empty text.
 * An empty BODY is not found; of any other the value is the whole body, byte
 * for byte.
 *
 * NGX_OK; NGX_DECLINED if it is not there; NGX_ABORT and wh->reason if it
 * lies in a pair of the query string that is malformed (bad percent escape,
 * NUL, not UTF-8) or not the only one of its name; NGX_ERROR if there is no
 * memory.
 */

ngx_int_t ngx_http_iothub_webhook_find(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_locator_t *locator, ngx_http_iothub_value_t *value);

/*
 * The same, but leaves the text of a JSON string that holds escapes (then
 * value->escaped is set) empty: for callers that may need only raw.
 * ngx_http_iothub_webhook_text() sets it, from the pool, and clears escaped;
 * it does nothing to other values.  NGX_OK or NGX_ERROR (no memory).
 */

ngx_int_t ngx_http_iothub_webhook_find_raw(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_locator_t *locator, ngx_http_iothub_value_t *value);
ngx_int_t ngx_http_iothub_webhook_text(ngx_pool_t *pool,
    ngx_http_iothub_value_t *value);

/*
 * The elements of an array, each as a webhook of its own: pointers are
 * relative to it, form, query, headers and body are those of the whole.
 *
 * first() finds the array.  NGX_OK; NGX_DECLINED if there is none.
 * next() fills *element.  NGX_OK; NGX_DONE after the last; NGX_ERROR if there
 * is no memory.
 */

typedef struct {
    ngx_http_iothub_webhook_t *wh;
    u_char                    *pos;
    u_char                    *last;
} ngx_http_iothub_elements_t;

ngx_int_t ngx_http_iothub_webhook_first(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_locator_t *locator, ngx_http_iothub_elements_t *elements);
ngx_int_t ngx_http_iothub_webhook_next(ngx_http_iothub_elements_t *elements,
    ngx_http_iothub_webhook_t *element);

/*
 * Is this text by itself one JSON value of any type, by the rules of
 * ngx_http_iothub_webhook_parse()?  *json is the text without the white
 * space around it, a slice.  NGX_OK, NGX_DECLINED, or NGX_ERROR (no memory).
 */

ngx_int_t ngx_http_iothub_webhook_embed(ngx_str_t *text, ngx_str_t *json);

/*
 * Has a JSON value that was found only members with these names?  names ends
 * with an empty one.  NGX_OK; NGX_DECLINED if it has another, or is no object.
 */

ngx_int_t ngx_http_iothub_webhook_only(ngx_http_iothub_value_t *value,
    const ngx_str_t *names);


#endif /* _NGX_HTTP_IOTHUB_WEBHOOK_H_INCLUDED_ */
