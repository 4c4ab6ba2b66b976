
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_field.h"
#include "ngx_http_iothub_handler.h"
#include "ngx_http_iothub_variables.h"


typedef struct {
    ngx_array_t   locators;    /* ngx_http_iothub_locator_t, in order */
    ngx_str_t     otherwise;   /* default= */
    unsigned      raw:1;
} ngx_http_iothub_user_field_t;


static ngx_uint_t ngx_http_iothub_field_is_variable(ngx_str_t *name);
static ngx_uint_t ngx_http_iothub_field_is_taken(ngx_conf_t *cf,
    ngx_str_t *name);
static ngx_int_t ngx_http_iothub_field_words(ngx_conf_t *cf,
    ngx_http_iothub_user_field_t *field);
static ngx_int_t ngx_http_iothub_field_locator(ngx_conf_t *cf,
    ngx_http_iothub_user_field_t *field, ngx_str_t *text);
static ngx_int_t ngx_http_iothub_field_get(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_iothub_field_find(ngx_http_request_t *r,
    ngx_http_iothub_user_field_t *field, ngx_str_t *text);
static ngx_http_iothub_webhook_t *ngx_http_iothub_field_webhook(
    ngx_http_request_t *r, ngx_http_iothub_webhook_t *early);


char *
ngx_http_iothub_field(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_iothub_main_conf_t *imcf = conf;

    ngx_str_t                     *value, name;
    ngx_int_t                     *index;
    ngx_http_variable_t           *v;
    ngx_http_iothub_user_field_t  *field;

    value = cf->args->elts;
    name = value[1];

    if (!ngx_http_iothub_field_is_variable(&name)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid variable name \"%V\" in iothub_field: "
                           "write \"iothub_field $name LOCATOR...;\", with "
                           "letters, digits and \"_\" in the name, and no "
                           "digit first", &name);
        return NGX_CONF_ERROR;
    }

    name.len--;
    name.data++;

    if (ngx_http_iothub_field_is_taken(cf, &name)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "there is a variable \"$%V\" already, of nginx or "
                           "of another directive: give that of iothub_field "
                           "another name", &name);
        return NGX_CONF_ERROR;
    }

    field = ngx_pcalloc(cf->pool, sizeof(ngx_http_iothub_user_field_t));
    if (field == NULL) {
        return NGX_CONF_ERROR;
    }

    if (ngx_http_iothub_field_words(cf, field) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    v = ngx_http_add_variable(cf, &name, NGX_HTTP_VAR_NOCACHEABLE);
    if (v == NULL) {
        return NGX_CONF_ERROR;
    }

    v->get_handler = ngx_http_iothub_field_get;
    v->data = (uintptr_t) field;

    index = ngx_array_push(&imcf->variables);
    if (index == NULL) {
        return NGX_CONF_ERROR;
    }

    *index = ngx_http_get_variable_index(cf, &name);

    return *index == NGX_ERROR ? NGX_CONF_ERROR : NGX_CONF_OK;
}


/* with another name it could not be asked for */

static ngx_uint_t
ngx_http_iothub_field_is_variable(ngx_str_t *name)
{
    u_char      ch;
    ngx_uint_t  i;

    if (name->len < 2 || name->data[0] != '$'
        || (name->data[1] >= '0' && name->data[1] <= '9'))
    {
        return 0;
    }

    for (i = 1; i < name->len; i++) {
        ch = name->data[i];

        if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z')
              || (ch >= '0' && ch <= '9') || ch == '_'))
        {
            return 0;
        }
    }

    return 1;
}


/* nginx itself replaces a variable of "map", and some of its own, silently */

static ngx_uint_t
ngx_http_iothub_field_is_taken(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_uint_t                  i;
    ngx_hash_key_t             *key;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    key = cmcf->variables_keys->keys.elts;

    for (i = 0; i < cmcf->variables_keys->keys.nelts; i++) {
        if (key[i].key.len == name->len
            && ngx_strncasecmp(key[i].key.data, name->data, name->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


static ngx_int_t
ngx_http_iothub_field_words(ngx_conf_t *cf,
    ngx_http_iothub_user_field_t *field)
{
    ngx_str_t   *value;
    ngx_uint_t   i;

    value = cf->args->elts;

    if (ngx_array_init(&field->locators, cf->pool, cf->args->nelts,
                       sizeof(ngx_http_iothub_locator_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "default=", 8) == 0) {

            if (field->otherwise.data) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "\"default=\" is there twice");
                return NGX_ERROR;
            }

            field->otherwise.data = value[i].data + 8;
            field->otherwise.len = value[i].len - 8;

            if (field->otherwise.len > 1 && field->otherwise.data[0] == '$') {
                ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                                   "\"%V\" is a text, not a variable: for "
                                   "its value, write a \"map\" that has "
                                   "\"%V\" in it", &value[i], &value[1]);
            }

            continue;
        }

        if (ngx_strcmp(value[i].data, "raw") == 0) {
            field->raw = 1;
            continue;
        }

        if (ngx_http_iothub_field_locator(cf, field, &value[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (field->locators.nelts == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" has no locator: write json:/pointer, "
                           "form:name, query:name, header:name or body",
                           &value[1]);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_field_locator(ngx_conf_t *cf,
    ngx_http_iothub_user_field_t *field, ngx_str_t *text)
{
    ngx_int_t                   rc;
    const char                 *reason;
    ngx_http_iothub_locator_t  *locator;

    if (text->len && text->data[0] == '$') {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid locator \"%V\": it takes no variables; a "
                           "member of this name is \"json:/%V\"", text, text);
        return NGX_ERROR;
    }

    locator = ngx_array_push(&field->locators);
    if (locator == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_http_iothub_locator_read(cf->pool, text, locator, &reason);

    if (rc == NGX_DECLINED) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid locator \"%V\": %s", text, reason);
        return NGX_ERROR;
    }

    if (rc == NGX_OK && locator->kind == NGX_HTTP_IOTHUB_LOCATOR_HEADER) {
        ngx_strlow(locator->name.data, locator->name.data,
                   locator->name.len);
    }

    return rc;
}


static ngx_int_t
ngx_http_iothub_field_get(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_iothub_user_field_t *field = (ngx_http_iothub_user_field_t *) data;

    ngx_str_t  text;

    if (ngx_http_iothub_field_find(r, field, &text) != NGX_OK) {
        return NGX_ERROR;
    }

    if (text.len == 0) {
        text = field->otherwise;
    }

    if (text.len == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    return field->raw ? ngx_http_iothub_variables_set(v, &text)
                      : ngx_http_iothub_variables_set_safe(r, v, &text);
}


/*
 * The first that is more than an empty text or null; else null, which is the
 * JSON text of what was found, if there is no default.
 */

static ngx_int_t
ngx_http_iothub_field_find(ngx_http_request_t *r,
    ngx_http_iothub_user_field_t *field, ngx_str_t *text)
{
    ngx_int_t                   rc;
    ngx_str_t                   null;
    ngx_uint_t                  i;
    ngx_http_iothub_value_t     value;
    ngx_http_iothub_locator_t  *locator;
    ngx_http_iothub_webhook_t  *wh, early;

    ngx_str_null(text);
    ngx_str_null(&null);

    wh = ngx_http_iothub_field_webhook(r, &early);
    if (wh == NULL) {
        return NGX_ERROR;
    }

    locator = field->locators.elts;

    for (i = 0; i < field->locators.nelts; i++) {

        rc = ngx_http_iothub_webhook_find(wh, &locator[i], &value);

        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (rc != NGX_OK || value.text.len == 0) {
            continue;
        }

        if (value.json && value.type == NGX_HTTP_IOTHUB_NULL) {
            null = value.text;
            continue;
        }

        *text = value.text;
        return NGX_OK;
    }

    if (field->otherwise.data == NULL) {
        *text = null;
    }

    return NGX_OK;
}


/* before the body is known, there are query and headers */

static ngx_http_iothub_webhook_t *
ngx_http_iothub_field_webhook(ngx_http_request_t *r,
    ngx_http_iothub_webhook_t *early)
{
    ngx_str_t               body;
    ngx_http_iothub_ctx_t  *ctx;

    ctx = ngx_http_iothub_find_ctx(r);

    if (ctx && ctx->parsed) {
        return &ctx->webhook;
    }

    ngx_str_null(&body);

    if (ngx_http_iothub_webhook_parse(r->pool, early, NGX_HTTP_IOTHUB_NO_BODY,
                                      &body, &r->args)
        != NGX_OK)
    {
        return NULL;
    }

    early->header = ngx_http_iothub_header_in;
    early->header_data = r;

    return early;
}
