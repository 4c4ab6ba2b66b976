
/* Copyright (C) the ngx_http_iothub_module authors */


/*
 * webhook: body bytes -> fields.
 *
 * Says what a webhook's body is, checks it, and finds values in it: members
 * of JSON by RFC 6901 pointers, pairs of a form, pairs of the query string.
 * jansson validates JSON and is known in this room only; what is handed out
 * are the sender's own bytes, which a second scanner finds in the validated
 * text.
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


/* a form with more pairs is malformed */
#define NGX_HTTP_IOTHUB_WEBHOOK_MAX_PAIRS  1000


typedef enum {
    NGX_HTTP_IOTHUB_STRING = 0,
    NGX_HTTP_IOTHUB_NUMBER,
    NGX_HTTP_IOTHUB_TRUE,
    NGX_HTTP_IOTHUB_FALSE,
    NGX_HTTP_IOTHUB_NULL,
    NGX_HTTP_IOTHUB_OBJECT,
    NGX_HTTP_IOTHUB_ARRAY
} ngx_http_iothub_type_e;


typedef enum {
    NGX_HTTP_IOTHUB_NO_BODY = 0,
    NGX_HTTP_IOTHUB_JSON,
    NGX_HTTP_IOTHUB_FORM,
    NGX_HTTP_IOTHUB_RAW          /* any bytes, nothing is checked */
} ngx_http_iothub_format_e;


typedef enum {
    NGX_HTTP_IOTHUB_LOCATOR_JSON = 0,
    NGX_HTTP_IOTHUB_LOCATOR_FORM,
    NGX_HTTP_IOTHUB_LOCATOR_QUERY,
    NGX_HTTP_IOTHUB_LOCATOR_HEADER,
    NGX_HTTP_IOTHUB_LOCATOR_BODY,
    NGX_HTTP_IOTHUB_LOCATOR_NAME
} ngx_http_iothub_locator_e;


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


/* one step of a pointer: a member's name, or an element's index */

typedef struct {
    ngx_str_t                  name;       /* decoded */
    ngx_int_t                  index;      /* or -1: not an index */
} ngx_http_iothub_step_t;


typedef struct {
    ngx_http_iothub_locator_e  kind;
    ngx_str_t                  name;       /* of all but JSON and BODY */
    ngx_http_iothub_step_t    *steps;      /* of JSON; none: the root */
    ngx_uint_t                 nsteps;
} ngx_http_iothub_locator_t;


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
 * Says from the Content-Type (NULL or empty: there is none) in which format
 * the body is.  application/json, text/json and anything whose subtype ends
 * in +json are JSON, application/x-www-form-urlencoded is FORM, parameters
 * are allowed.  Without a Content-Type, an empty body is NO_BODY, one that
 * starts with { or [ is JSON, and any other is FORM, Particle's default.
 * RAW is never chosen here.
 *
 * NGX_OK; NGX_DECLINED if the type is another one, is no media type, or has
 * a charset that is neither utf-8 nor us-ascii.
 */

ngx_int_t ngx_http_iothub_webhook_format(ngx_str_t *content_type,
    ngx_str_t *body, ngx_http_iothub_format_e *format);

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
 * Reads a locator as written in the configuration: json:/pointer, form:name,
 * query:name, header:name, body; a text that starts with / is a pointer, any
 * other without a colon is a NAME: a member of the root object, else a pair
 * of the form, else a pair of the query string.  "json:" is the root.
 * The result points into the text; what has to be decoded is from the pool.
 *
 * NGX_OK; NGX_DECLINED and *reason if it is no locator; NGX_ERROR if there
 * is no memory.
 */

ngx_int_t ngx_http_iothub_webhook_locator(ngx_pool_t *pool, ngx_str_t *text,
    ngx_http_iothub_locator_t *locator, const char **reason);

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

/*
 * Escapes a text for use between the quotes of a JSON string: the quote, the
 * backslash and control characters.  dst NULL: returns the size of the
 * result in bytes.  Otherwise writes it to dst, which has that size, and
 * returns the size.
 */

size_t ngx_http_iothub_json_escape(u_char *dst, ngx_str_t *src);


#endif /* _NGX_HTTP_IOTHUB_WEBHOOK_H_INCLUDED_ */
