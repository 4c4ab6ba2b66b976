
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_hub_identity.h"
#include "ngx_http_iothub_webhook.h"


#define NGX_HTTP_IOTHUB_REASON_MAX  128


static char *ngx_http_iothub_hub_identity_auth(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub, ngx_str_t *members);
static char *ngx_http_iothub_hub_identity_values(ngx_conf_t *cf,
    ngx_http_iothub_webhook_t *wh);
static ngx_uint_t ngx_http_iothub_hub_is_word(ngx_http_iothub_value_t *value,
    const char *const *words);
static ngx_int_t ngx_http_iothub_hub_member(ngx_conf_t *cf,
    ngx_http_iothub_webhook_t *wh, const char *text,
    ngx_http_iothub_value_t *value);


/* what a user may add to an identity */

static const ngx_str_t  ngx_http_iothub_hub_members[] = {
    ngx_string("status"),
    ngx_string("statusReason"),
    ngx_string("authentication"),
    ngx_string("capabilities"),
    ngx_null_string
};


static const ngx_str_t  ngx_http_iothub_hub_auth_members[] = {
    ngx_string("type"),
    ngx_null_string
};


/* as Azure's SDKs create an identity whose keys the hub is to make */

ngx_str_t  ngx_http_iothub_hub_default_auth = ngx_string(
    "\"authentication\":{\"type\":\"sas\",\"symmetricKey\":"
    "{\"primaryKey\":\"\",\"secondaryKey\":\"\"}}");


char *
ngx_http_iothub_hub_identity(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    char                       *rv;
    ngx_int_t                   rc;
    ngx_str_t                  *text, members;
    ngx_http_iothub_value_t     root, found;
    ngx_http_iothub_webhook_t   wh;

    text = cf->args->elts;
    text++;

    rc = ngx_http_iothub_webhook_parse(cf->temp_pool, &wh,
                                       NGX_HTTP_IOTHUB_JSON, text, NULL);

    if (rc == NGX_ERROR) {
        return NGX_CONF_ERROR;
    }

    if (rc == NGX_DECLINED
        || ngx_http_iothub_hub_member(cf, &wh, "json:", &root) != NGX_OK
        || root.type != NGX_HTTP_IOTHUB_OBJECT)
    {
        return "needs a JSON object like '{\"status\":\"enabled\"}'";
    }

    if (ngx_http_iothub_webhook_only(&root, ngx_http_iothub_hub_members)
        != NGX_OK)
    {
        return "takes only \"status\", \"statusReason\", "
               "\"authentication\" and \"capabilities\"; \"deviceId\" is "
               "always that of the event";
    }

    rv = ngx_http_iothub_hub_identity_values(cf, &wh);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    /* what is between the braces, as it was written */

    members.data = root.raw.data + 1;
    members.len = root.raw.len - 2;

    rc = ngx_http_iothub_hub_member(cf, &wh, "/authentication", &found);

    if (rc == NGX_DECLINED) {
        return ngx_http_iothub_hub_identity_auth(cf, hub, &members);
    }

    if (rc != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (ngx_http_iothub_webhook_only(&found, ngx_http_iothub_hub_auth_members)
        != NGX_OK)
    {
        return "takes only \"type\" in \"authentication\": keys do not "
               "belong into nginx.conf, the hub makes them";
    }

    hub->identity = members;

    return NGX_CONF_OK;
}


static char *
ngx_http_iothub_hub_identity_auth(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub,
    ngx_str_t *members)
{
    u_char      *p;
    ngx_uint_t   i;

    hub->identity.data = ngx_pnalloc(cf->pool, members->len + 1
                                     + ngx_http_iothub_hub_default_auth.len);
    if (hub->identity.data == NULL) {
        return NGX_CONF_ERROR;
    }

    p = ngx_cpymem(hub->identity.data, ngx_http_iothub_hub_default_auth.data,
                   ngx_http_iothub_hub_default_auth.len);

    /* an empty object has nothing to add */

    for (i = 0; i < members->len; i++) {
        if (members->data[i] == '"') {
            *p++ = ',';
            p = ngx_cpymem(p, members->data, members->len);
            break;
        }
    }

    hub->identity.len = p - hub->identity.data;

    return NGX_CONF_OK;
}


/* what the hub would refuse with each creation */

static char *
ngx_http_iothub_hub_identity_values(ngx_conf_t *cf,
    ngx_http_iothub_webhook_t *wh)
{
    ngx_http_iothub_value_t  v;

    static const char *const  statuses[] = { "enabled", "disabled", NULL };

    static const char *const  types[] = {
        "sas", "selfSigned", "certificateAuthority", "none", NULL
    };

    if (ngx_http_iothub_hub_member(cf, wh, "/status", &v) == NGX_OK
        && !ngx_http_iothub_hub_is_word(&v, statuses))
    {
        return "needs \"enabled\" or \"disabled\" as the \"status\"";
    }

    if (ngx_http_iothub_hub_member(cf, wh, "/statusReason", &v) == NGX_OK
        && (v.type != NGX_HTTP_IOTHUB_STRING
            || ngx_utf8_length(v.text.data, v.text.len)
               > NGX_HTTP_IOTHUB_REASON_MAX))
    {
        return "needs a text of up to 128 characters as the "
               "\"statusReason\"";
    }

    if ((ngx_http_iothub_hub_member(cf, wh, "/capabilities", &v) == NGX_OK
         && v.type != NGX_HTTP_IOTHUB_OBJECT)
        || (ngx_http_iothub_hub_member(cf, wh, "/capabilities/iotEdge", &v)
            == NGX_OK
            && v.type != NGX_HTTP_IOTHUB_TRUE
            && v.type != NGX_HTTP_IOTHUB_FALSE))
    {
        return "needs \"capabilities\" like {\"iotEdge\":true}";
    }

    if (ngx_http_iothub_hub_member(cf, wh, "/authentication/type", &v)
        == NGX_OK
        && !ngx_http_iothub_hub_is_word(&v, types))
    {
        return "needs \"sas\", \"selfSigned\", \"certificateAuthority\" or "
               "\"none\" as the \"type\" in \"authentication\"";
    }

    return NGX_CONF_OK;
}


static ngx_uint_t
ngx_http_iothub_hub_is_word(ngx_http_iothub_value_t *value,
    const char *const *words)
{
    if (value->type != NGX_HTTP_IOTHUB_STRING) {
        return 0;
    }

    for ( /* void */ ; *words; words++) {
        if (value->text.len == ngx_strlen(*words)
            && ngx_strncmp(value->text.data, *words, value->text.len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


static ngx_int_t
ngx_http_iothub_hub_member(ngx_conf_t *cf, ngx_http_iothub_webhook_t *wh,
    const char *text, ngx_http_iothub_value_t *value)
{
    ngx_str_t                   s;
    const char                 *reason;
    ngx_http_iothub_locator_t   locator;

    s.data = (u_char *) text;
    s.len = ngx_strlen(text);

    if (ngx_http_iothub_locator_read(cf->temp_pool, &s, &locator, &reason)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_iothub_webhook_find(wh, &locator, value);
}
