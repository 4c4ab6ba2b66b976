
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_keys.h"


typedef enum {
    NGX_HTTP_IOTHUB_KEYS_HOSTNAME = 0,
    NGX_HTTP_IOTHUB_KEYS_POLICY,
    NGX_HTTP_IOTHUB_KEYS_KEY,
    NGX_HTTP_IOTHUB_KEYS_PARTS
} ngx_http_iothub_keys_part_e;


/* A part of a connection string: its place, or why it is refused. */

typedef struct {
    ngx_str_t                    name;
    const char                  *refusal;
    ngx_http_iothub_keys_part_e  part;
} ngx_http_iothub_keys_part_t;


static void ngx_http_iothub_keys_trim(ngx_str_t *text);
static ngx_int_t ngx_http_iothub_keys_add(ngx_pool_t *pool,
    ngx_str_t *base64, ngx_str_t *keys, ngx_uint_t *nkeys);
static const char *ngx_http_iothub_keys_split(ngx_str_t *line,
    ngx_str_t *parts);
static const char *ngx_http_iothub_keys_take_part(ngx_str_t *name,
    ngx_str_t *value, ngx_str_t *parts);
static const char *ngx_http_iothub_keys_check_parts(ngx_str_t *parts,
    ngx_http_iothub_keys_connection_t *connection);
static ngx_int_t ngx_http_iothub_keys_copy_names(ngx_pool_t *pool,
    ngx_http_iothub_keys_connection_t *connection, ngx_str_t *parts);


static const char  ngx_http_iothub_keys_not_base64[] =
    "the key is not base64, copy it whole, as the portal shows it";

static const char  ngx_http_iothub_keys_of_device[] =
    "this is a device's connection string, give that of a shared access "
    "policy";

static const char  ngx_http_iothub_keys_of_event_hub[] =
    "this is the connection string of an Event Hubs endpoint, give that of "
    "a shared access policy";


static const ngx_http_iothub_keys_part_t  ngx_http_iothub_keys_parts[] = {

    { ngx_string("HostName"), NULL, NGX_HTTP_IOTHUB_KEYS_HOSTNAME },

    { ngx_string("SharedAccessKeyName"), NULL, NGX_HTTP_IOTHUB_KEYS_POLICY },

    { ngx_string("SharedAccessKey"), NULL, NGX_HTTP_IOTHUB_KEYS_KEY },

    { ngx_string("SharedAccessSignature"),
      "a SharedAccessSignature expires, give the SharedAccessKey instead",
      NGX_HTTP_IOTHUB_KEYS_PARTS },

    { ngx_string("DeviceId"), ngx_http_iothub_keys_of_device,
      NGX_HTTP_IOTHUB_KEYS_PARTS },

    { ngx_string("ModuleId"), ngx_http_iothub_keys_of_device,
      NGX_HTTP_IOTHUB_KEYS_PARTS },

    { ngx_string("GatewayHostName"),
      "GatewayHostName is for devices behind IoT Edge, remove it",
      NGX_HTTP_IOTHUB_KEYS_PARTS },

    { ngx_string("Endpoint"), ngx_http_iothub_keys_of_event_hub,
      NGX_HTTP_IOTHUB_KEYS_PARTS },

    { ngx_string("EntityPath"), ngx_http_iothub_keys_of_event_hub,
      NGX_HTTP_IOTHUB_KEYS_PARTS },

    { ngx_null_string, NULL, NGX_HTTP_IOTHUB_KEYS_PARTS }
};


ngx_int_t
ngx_http_iothub_keys_next_line(ngx_str_t *text, ngx_str_t *line, ngx_uint_t *n)
{
    u_char  *eol;
    size_t   len;

    if (*n == 0 && text->len >= 3
        && ngx_memcmp(text->data, "\xEF\xBB\xBF", 3) == 0)
    {
        text->data += 3;
        text->len -= 3;
    }

    while (text->len) {
        eol = ngx_strlchr(text->data, text->data + text->len, LF);
        len = eol ? (size_t) (eol - text->data) : text->len;

        line->data = text->data;
        line->len = len;

        if (eol) {
            len++;
        }

        text->data += len;
        text->len -= len;

        (*n)++;

        ngx_http_iothub_keys_trim(line);

        if (line->len && line->data[0] != '#') {
            return NGX_OK;
        }
    }

    return NGX_DONE;
}


static void
ngx_http_iothub_keys_trim(ngx_str_t *text)
{
    u_char  c;

    while (text->len) {
        c = text->data[0];

        if (c != ' ' && c != '\t' && c != CR) {
            break;
        }

        text->data++;
        text->len--;
    }

    while (text->len) {
        c = text->data[text->len - 1];

        if (c != ' ' && c != '\t' && c != CR) {
            break;
        }

        text->len--;
    }
}


ngx_int_t
ngx_http_iothub_keys_decode(ngx_pool_t *pool, ngx_str_t *base64,
    ngx_str_t *key)
{
    size_t     i, len;
    ngx_str_t  dst;

    len = base64->len;

    if (len == 0 || len % 4 != 0) {
        return NGX_DECLINED;
    }

    /* ngx_decode_base64() takes the first "=" for the end of its input */

    for (i = 0; i < len; i++) {
        if (base64->data[i] == '=') {
            break;
        }
    }

    if (len - i > 2 || (len - i == 2 && base64->data[len - 1] != '=')) {
        return NGX_DECLINED;
    }

    dst.data = ngx_pnalloc(pool, ngx_base64_decoded_length(len));
    if (dst.data == NULL) {
        return NGX_ERROR;
    }

    if (ngx_decode_base64(&dst, base64) != NGX_OK) {
        return NGX_DECLINED;
    }

    *key = dst;

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_keys_parse(ngx_pool_t *pool, ngx_str_t *text,
    ngx_str_t keys[NGX_HTTP_IOTHUB_KEYS], ngx_uint_t *nkeys,
    const char **reason, ngx_uint_t *line)
{
    ngx_int_t   rc;
    ngx_str_t   rest, base64;
    ngx_uint_t  lines;

    rest = *text;
    lines = 0;
    *nkeys = 0;
    *line = 0;

    while (ngx_http_iothub_keys_next_line(&rest, &base64, line) == NGX_OK) {

        if (lines++ == NGX_HTTP_IOTHUB_KEYS) {
            *reason = "more than two keys, a hub's policy has a primary and "
                      "a secondary";
            return NGX_DECLINED;
        }

        rc = ngx_http_iothub_keys_add(pool, &base64, keys, nkeys);

        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (rc == NGX_DECLINED) {
            *reason = ngx_strlchr(base64.data, base64.data + base64.len, ';')
                      ? "this is no key; for a connection string use "
                        "\"connection_string_file\""
                      : ngx_http_iothub_keys_not_base64;
            return NGX_DECLINED;
        }
    }

    *line = 0;

    if (lines == 0) {
        *reason = "no key in it, write the policy's primary key";
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_keys_add(ngx_pool_t *pool, ngx_str_t *base64,
    ngx_str_t *keys, ngx_uint_t *nkeys)
{
    ngx_int_t  rc;
    ngx_str_t  key;

    rc = ngx_http_iothub_keys_decode(pool, base64, &key);

    if (rc != NGX_OK) {
        return rc;
    }

    /* the same key twice is no second key to try when the first is refused */

    if (*nkeys
        && key.len == keys[0].len
        && ngx_memcmp(key.data, keys[0].data, key.len) == 0)
    {
        ngx_explicit_memzero(key.data, key.len);
        return NGX_OK;
    }

    keys[(*nkeys)++] = key;

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_keys_parse_connection_string(ngx_pool_t *pool,
    ngx_str_t *text, ngx_http_iothub_keys_connection_t *connection,
    const char **reason, ngx_uint_t *line)
{
    ngx_int_t   rc;
    ngx_str_t   rest, string, parts[NGX_HTTP_IOTHUB_KEYS_PARTS];
    ngx_uint_t  lines;

    ngx_memzero(connection, sizeof(ngx_http_iothub_keys_connection_t));

    rest = *text;
    lines = 0;
    *line = 0;

    while (ngx_http_iothub_keys_next_line(&rest, &string, line) == NGX_OK) {

        if (lines++ == NGX_HTTP_IOTHUB_KEYS) {
            *reason = "more than two connection strings, a hub's policy has "
                      "a primary and a secondary";
            return NGX_DECLINED;
        }

        *reason = ngx_http_iothub_keys_split(&string, parts);

        if (*reason == NULL) {
            *reason = ngx_http_iothub_keys_check_parts(parts, connection);
        }

        if (*reason) {
            return NGX_DECLINED;
        }

        rc = ngx_http_iothub_keys_add(pool, &parts[NGX_HTTP_IOTHUB_KEYS_KEY],
                                      connection->keys, &connection->nkeys);

        if (rc == NGX_DECLINED) {
            *reason = ngx_http_iothub_keys_not_base64;
        }

        if (rc != NGX_OK) {
            return rc;
        }

        if (ngx_http_iothub_keys_copy_names(pool, connection, parts)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    *line = 0;

    if (lines == 0) {
        *reason = "no connection string in it, write that of a shared access "
                  "policy";
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static const char *
ngx_http_iothub_keys_split(ngx_str_t *line, ngx_str_t *parts)
{
    u_char      *p, *last, *end, *eq;
    ngx_str_t    name, value;
    const char  *reason;

    ngx_memzero(parts, NGX_HTTP_IOTHUB_KEYS_PARTS * sizeof(ngx_str_t));

    p = line->data;
    last = p + line->len;

    for ( /* void */ ; p < last; p = end + 1) {

        end = ngx_strlchr(p, last, ';');
        if (end == NULL) {
            end = last;
        }

        name.data = p;
        name.len = end - p;

        ngx_http_iothub_keys_trim(&name);

        if (name.len == 0) {
            /* as after the last ";" */
            continue;
        }

        eq = ngx_strlchr(p, end, '=');
        if (eq == NULL) {
            return "a part without \"=\", a connection string is "
                   "\"Name=value;Name=value...\"";
        }

        /* a key ends in "=": only the first one separates */

        name.len = eq - name.data;
        value.data = eq + 1;
        value.len = end - value.data;

        ngx_http_iothub_keys_trim(&name);
        ngx_http_iothub_keys_trim(&value);

        reason = ngx_http_iothub_keys_take_part(&name, &value, parts);
        if (reason) {
            return reason;
        }
    }

    return NULL;
}


static const char *
ngx_http_iothub_keys_take_part(ngx_str_t *name, ngx_str_t *value,
    ngx_str_t *parts)
{
    const ngx_http_iothub_keys_part_t  *part;

    for (part = ngx_http_iothub_keys_parts; part->name.len; part++) {

        if (part->name.len == name->len
            && ngx_strncasecmp(part->name.data, name->data, name->len) == 0)
        {
            break;
        }
    }

    if (part->refusal) {
        return part->refusal;
    }

    if (part->name.len == 0) {
        return "an unknown part, a connection string is "
               "\"HostName=...;SharedAccessKeyName=...;SharedAccessKey=...\"";
    }

    if (parts[part->part].len) {
        return "a part is given twice, remove one";
    }

    if (value->len == 0) {
        return "a part is empty, copy the string whole";
    }

    parts[part->part] = *value;

    return NULL;
}


static const char *
ngx_http_iothub_keys_check_parts(ngx_str_t *parts,
    ngx_http_iothub_keys_connection_t *connection)
{
    ngx_str_t  *hostname, *policy;

    hostname = &parts[NGX_HTTP_IOTHUB_KEYS_HOSTNAME];
    policy = &parts[NGX_HTTP_IOTHUB_KEYS_POLICY];

    if (hostname->len == 0) {
        return "\"HostName=\" is missing";
    }

    if (policy->len == 0) {
        return "\"SharedAccessKeyName=\" is missing";
    }

    if (parts[NGX_HTTP_IOTHUB_KEYS_KEY].len == 0) {
        return "\"SharedAccessKey=\" is missing";
    }

    if (connection->hostname.len == 0) {
        return NULL;
    }

    if (hostname->len != connection->hostname.len
        || ngx_strncasecmp(hostname->data, connection->hostname.data,
                           hostname->len)
           != 0)
    {
        return "not the first line's HostName, the second line is for the "
               "same policy's secondary key";
    }

    if (policy->len != connection->policy.len
        || ngx_memcmp(policy->data, connection->policy.data, policy->len) != 0)
    {
        return "not the first line's SharedAccessKeyName, the second line is "
               "for the same policy's secondary key";
    }

    return NULL;
}


static ngx_int_t
ngx_http_iothub_keys_copy_names(ngx_pool_t *pool,
    ngx_http_iothub_keys_connection_t *connection, ngx_str_t *parts)
{
    ngx_str_t  *hostname, *policy;

    if (connection->hostname.len) {
        /* the second line, which says the same */
        return NGX_OK;
    }

    hostname = &parts[NGX_HTTP_IOTHUB_KEYS_HOSTNAME];
    policy = &parts[NGX_HTTP_IOTHUB_KEYS_POLICY];

    connection->hostname.data = ngx_pstrdup(pool, hostname);
    connection->policy.data = ngx_pstrdup(pool, policy);

    if (connection->hostname.data == NULL || connection->policy.data == NULL) {
        return NGX_ERROR;
    }

    connection->hostname.len = hostname->len;
    connection->policy.len = policy->len;

    return NGX_OK;
}
