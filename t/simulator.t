#!/usr/bin/perl

# Copyright (C) the ngx_http_iothub_module authors

# The hub simulator itself: what it takes, refuses, breaks and tells.

use v5.36;
use strict;
use warnings;

use FindBin ();
use IO::Select ();
use JSON::PP qw(decode_json encode_json);
use MIME::Base64 qw(decode_base64 encode_base64);
use Socket qw(SOCK_STREAM);
use Test::More;
use Time::HiRes qw(sleep time);

use lib "$FindBin::RealBin/lib";

use IoTHub::Simulator::Policies;
use IoTHub::Simulator::Process;
use IoTHub::Simulator::Token qw(token_check token_parse);

use constant {
    HOST    => IoTHub::Simulator::Process::HOST,
    VERSION => 'api-version=2021-04-12',
};

my $KEY    = encode_base64('0123456789abcdef0123456789abcdef', '');
my $SECOND = encode_base64('fedcba9876543210fedcba9876543210', '');
my $OTHER  = encode_base64('another key, 32 bytes, no policy', '');

my @POLICIES = (
    '--policy', "webhook:$KEY:$SECOND",
    '--policy', "reader:$KEY:RegistryRead",
    '--policy', "writer:$KEY:RegistryWrite",
    '--policy', "device:$KEY:DeviceConnect",
);

my $json = "Content-Type: application/json";
my $sim  = IoTHub::Simulator::Process->start(@POLICIES,
    '--device', 'dev-1', '--device', 'dev-2');


sub token(%arg) {
    return IoTHub::Simulator::Process::token(key => $KEY, skn => 'webhook',
        %arg);
}


sub authorization(%arg) { return 'Authorization: ' . token(%arg) }


sub send_message($id, $body = 'x', @headers) {
    push @headers, authorization() unless grep { /^authorization:/i }
        @headers;
    return $sim->request('POST', "/devices/$id/messages/events?" . VERSION,
        \@headers, $body);
}


sub registry($method, $path, $value = undef, @headers) {
    push @headers, authorization() unless grep { /^authorization:/i }
        @headers;
    push @headers, $json if defined $value;
    my $answer = $sim->request($method, "/devices$path"
        . ($path =~ /\?/ ? '&' : '?') . VERSION, \@headers,
        ref $value ? encode_json($value) : $value);
    $answer->{data} = eval { decode_json($answer->{body}) };
    return $answer;
}


sub error_is($answer, $status, $error, $name) {
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my $got = "$answer->{status} "
        . ($answer->{headers}{'iothub-errorcode'} // '-');
    return is($got, "$status $error", $name);
}


subtest 'SAS: known answers' => sub {
    open my $in, '<', "$FindBin::RealBin/vectors/sas.json" or die $!;
    my $vectors = decode_json(do { local $/; <$in> })->{vectors};
    cmp_ok(scalar @$vectors, '>=', 17, 'vectors');

    for my $vector (@$vectors) {
        my ($host, @path) = split m{/}, $vector->{resourceUri};
        my $policies = IoTHub::Simulator::Policies->new;
        $policies->replace({ $vector->{keyName} // 'none' =>
            { primary => $vector->{keyBase64} } });

        my %arg = (
            hosts    => [lc $host],
            path     => @path > 1 ? \@path : ['devices', 'd'],
            right    => 'DeviceConnect',
            device   => $path[1],
            policies => $policies,
            identity => Device->new($vector->{keyBase64}),
            now      => $vector->{expiry} - 10,
        );
        my $expected = defined $vector->{keyName} ? 'primary' : 'device';

        my ($key, $wrong) = token_check(token_parse($vector->{token}), %arg);
        is($key, $expected, $vector->{name})
            or diag explain $wrong;

        for my $change (['sig=' => 'sig=A'], ['se=1' => 'se=3'],
            ['se=2' => 'se=3'])
        {
            my ($from, $to) = @$change;
            my $changed = $vector->{token} =~ s/$from/$to/r;
            next if $changed eq $vector->{token};
            ($key) = token_check(token_parse($changed), %arg);
            is($key, undef, "$vector->{name}: refused with $to");
        }

        ($key) = token_check(token_parse($vector->{token}), %arg,
            now => $vector->{expiry} + 301);
        is($key, undef, "$vector->{name}: expires");
    }
};


subtest 'SAS: tokens for a message' => sub {
    my $host   = HOST;
    my $escape = sub ($text) {
        $text =~ s/([^A-Za-z0-9\-_.~])/sprintf '%%%02X', ord $1/ger;
    };

    my @rows = (
        ['policy, hub scope', token(), 204],
        ['secondary key', token(key => $SECOND), 204],
        ['devices scope', token(sr => "$host%2Fdevices"), 204],
        ['devices scope, lower case escape',
            token(sr => "$host%2fdevices"), 204],
        ['device scope', token(sr => "$host%2Fdevices%2Fdev-1"), 204],
        ['device scope, raw slashes', token(sr => "$host/devices/dev-1"),
            204],
        ['device scope, escaped twice',
            token(sr => "$host%2Fdevices%2Fdev%252D1"), 204],
        ['whole path as scope',
            token(sr => "$host/devices/dev-1/messages/events"), 204],
        ['host in another case', token(sr => uc $host), 204],
        ['right by a policy of its own', token(skn => 'device'), 204],
        ['fields in another order and case', token()
            =~ s/ (sr=.*?)&(sig=.*?)&(se=.*?)&skn=/ $3&\u$2&$1&SKN=/r, 204],
        ['expired, within the skew', token(ttl => -290), 204],

        ['expired', token(ttl => -310), 401],
        ['another key', token(key => $OTHER), 401],
        ['unknown policy', token(skn => 'nobody'), 401],
        ['policy in another case', token(skn => 'Webhook'), 401],
        ['another hub', token(sr => 'fabrikam.azure-devices.net'), 401],
        ['another device', token(sr => "$host/devices/dev-2"), 401],
        ['a prefix that is no segment', token(sr => "$host/devices/dev"),
            401],
        ['device in another case', token(sr => "$host/devices/DEV-1"), 401],
        ['a longer path', token(sr =>
            "$host/devices/dev-1/messages/events/x"), 401],
        ['registry rights only', token(skn => 'writer'), 401],
        ['sig not escaped', unescaped_plus(), 401],
        ['no sig', token() =~ s/&sig=[^&]*//r, 401],
        ['sr given twice', token() . "&sr=$host", 401],
        ['se no number', token(se => '1e12'), 401],
        ['another scheme', token() =~ s/^\w+/Bearer/r, 401],
        ['a third word', token() . ' x', 401],
    );

    for my $row (@rows) {
        my ($name, $token, $status) = @$row;
        my $answer = send_message('dev-1', 'x', "Authorization: $token");
        is($answer->{status}, $status, $name);
        next if $status == 204;
        like($answer->{headers}{'iothub-errorcode'}, qr/^IotHubUnauthorized/,
            "$name: named");
    }

    error_is($sim->request('POST',
        '/devices/dev-1/messages/events?' . VERSION, [], 'x'),
        401, 'IotHubUnauthorizedAccess', 'no token');
};


# A token whose sig has a + as it is: form decoding makes it a space.

sub unescaped_plus() {
    for my $ttl (3600 .. 4600) {
        my $token = token(ttl => $ttl);
        return $token =~ s/%2B/+/gr if $token =~ /%2B/;
    }
    die 'no signature with a plus';
}


subtest 'SAS: rights in the registry, device keys' => sub {
    error_is(registry('GET', '/dev-1', undef,
        authorization(skn => 'writer')), 401, 'IotHubUnauthorizedAccess',
        'GET needs RegistryRead');
    error_is(registry('PUT', '/new', { deviceId => 'new' },
        authorization(skn => 'reader')), 401, 'IotHubUnauthorizedAccess',
        'PUT needs RegistryWrite');
    error_is(registry('GET', '/dev-1', undef,
        authorization(sr => HOST . '%2Fdevices%2Fdev-2')),
        401, 'IotHubUnauthorizedAccess', 'scope counts in the registry');
    is(registry('GET', '/dev-1', undef,
        authorization(skn => 'reader'))->{status}, 200, 'GET with it');

    my $device = registry('GET', '/dev-1')->{data};
    my $keys   = $device->{authentication}{symmetricKey};
    my $scope  = HOST . '%2Fdevices%2Fdev-1';
    for my $which (qw(primaryKey secondaryKey)) {
        my $own = authorization(key => $keys->{$which}, skn => undef,
            sr => $scope);
        is(send_message('dev-1', 'x', $own)->{status}, 204,
            "message with the device's $which");
        is(send_message('dev-2', 'x', $own)->{status}, 401,
            'not for another device');
        is(registry('GET', '/dev-1', undef, $own)->{status}, 401,
            'not in the registry');
    }

    my $wide = authorization(key => $keys->{primaryKey}, skn => undef);
    is(send_message('dev-1', 'x', $wide)->{status}, 401,
        'a device key is not good for the hub');

    my $unknown = send_message('nobody', 'x', authorization(skn => undef,
        sr => HOST . '%2Fdevices%2Fnobody'));
    error_is($unknown, 401, 'IotHubUnauthorized', 'unknown device, its key');
    like($unknown->{body}, qr/does not contain the specified device/,
        'and the text says so');
};


subtest 'registry: create, get, update, delete' => sub {
    my $created = registry('PUT', '/reg-1', { deviceId => 'reg-1',
        authentication => { type => 'sas', symmetricKey =>
            { primaryKey => '', secondaryKey => '' } } });
    is($created->{status}, 200, 'created');
    is($created->{headers}{etag}, qq("$created->{data}{etag}"), 'ETag');
    is($created->{headers}{server}, 'Microsoft-HTTPAPI/2.0', 'Server');
    like($created->{headers}{'x-ms-request-id'}, qr/^[0-9a-f-]{36}\z/,
        'x-ms-request-id');
    like($created->{headers}{'content-type'}, qr{^application/json}, 'type');

    my $device = $created->{data};
    is(length decode_base64(
        $device->{authentication}{symmetricKey}{primaryKey}), 32,
        'a key was made');
    is_deeply([sort keys %$device], [qw(authentication capabilities
        cloudToDeviceMessageCount connectionState connectionStateUpdatedTime
        deviceId etag generationId lastActivityTime status statusReason
        statusUpdatedTime)], 'all members');

    my $again = registry('PUT', '/reg-1', { deviceId => 'reg-1' });
    error_is($again, 409, 'DeviceAlreadyExists', 'a second time');
    like($again->{data}{Message}, qr/^ErrorCode:DeviceAlreadyExists;/,
        'body, format 1');
    like($again->{data}{ExceptionMessage}, qr/^Tracking ID:/, 'tracking id');

    is_deeply(registry('GET', '/reg-1')->{data}, $device, 'unchanged');

    my $disabled = { deviceId => 'reg-1', status => 'disabled' };
    error_is(registry('PUT', '/reg-1', $disabled, 'If-Match: "other"'),
        412, 'PreconditionFailed', 'update, another etag');
    for my $match ("\"$device->{etag}\"", '"*"', '*') {
        my $updated = registry('PUT', '/reg-1', $disabled,
            "If-Match: $match");
        is($updated->{status}, 200, "update, If-Match: $match");
        is($updated->{data}{generationId}, $device->{generationId},
            'same generation');
        isnt($updated->{data}{etag}, $device->{etag}, 'another etag');
    }
    error_is(registry('PUT', '/missing', { deviceId => 'missing' },
        'If-Match: "*"'), 404, 'DeviceNotFound', 'update of none');
    error_is(registry('GET', '/missing'), 404, 'DeviceNotFound', 'get none');

    error_is(registry('DELETE', '/reg-1', undef, 'If-Match: "other"'),
        412, 'PreconditionFailed', 'delete, another etag');
    my $deleted = registry('DELETE', '/reg-1', undef, 'If-Match: "*"');
    is($deleted->{status}, 204, 'deleted');
    is($deleted->{headers}{'content-length'}, '0', 'Content-Length: 0');
    error_is(registry('DELETE', '/reg-1', undef, 'If-Match: "*"'),
        404, 'DeviceNotFound', 'delete none');
};


subtest 'registry: what it refuses' => sub {
    my $key = 'x' x 20;
    my @rows = (
        ['not JSON', 'new', '{', 400, 'IotHubFormatError'],
        ['no object', 'new', '[]', 400, 'IotHubFormatError'],
        ['no deviceId', 'new', {}, 400, 'ArgumentNull'],
        ['another deviceId', 'new', { deviceId => 'New' }, 400,
            'ArgumentInvalid'],
        ['no status', 'new', { deviceId => 'new', status => 'on' }, 400,
            'ArgumentInvalid'],
        ['no type', 'new', { deviceId => 'new',
            authentication => { type => 'x' } }, 400, 'ArgumentInvalid'],
        ['a long reason', 'new', { deviceId => 'new',
            statusReason => 'x' x 129 }, 400, 'ArgumentInvalid'],
        ['a short key', 'new', { deviceId => 'new', authentication =>
            { symmetricKey => { primaryKey => 'AAAA' } } }, 400,
            'ArgumentInvalid'],
        ['slash in the id', 'a%2Fb', { deviceId => 'a/b' }, 400,
            'ArgumentInvalid'],
        ['space in the id', 'a%20b', { deviceId => 'a b' }, 400,
            'ArgumentInvalid'],
        ['a long id', 'x' x 129, { deviceId => 'x' x 129 }, 400,
            'ArgumentInvalid'],
    );
    for my $row (@rows) {
        my ($name, $id, $value, $status, $error) = @$row;
        error_is(registry('PUT', "/$id", $value), $status, $error, $name);
    }

    error_is($sim->request('PUT', '/devices/new?' . VERSION,
        [authorization(), 'Content-Type: text/plain'],
        '{"deviceId":"new"}'), 415, 'GenericUnsupportedMediaType', 'type');
    error_is($sim->request('GET', "/devices/dev-1$_", [authorization()]),
        400, 'InvalidProtocolVersion', "api-version: '$_'")
        for '', '?api-version=', '?api-version=2021-04-13';
    is($sim->request('GET', "/devices/dev-1?api-version=$_",
        [authorization()])->{status}, 200, "api-version $_")
        for qw(2016-02-03 2020-09-30 2024-03-31);
    is(registry('POST', '/dev-1', {})->{status}, 405, 'method');
    is($sim->request('GET', '/jobs?' . VERSION,
        [authorization()])->{status}, 404, 'path');

    my $special = "A-.:+%_#*?!(),=\@;\$'z";
    my $escaped = "A-.%3A%2B%25_%23*%3F!()%2C%3D%40%3B%24'z";
    is(registry('PUT', "/$escaped", { deviceId => $special })->{status},
        200, 'an id with all that is legal');
    is(registry('GET', "/$escaped")->{data}{deviceId}, $special, 'the same');
    is(send_message($escaped)->{status}, 204, 'its message');
    is(registry('PUT', '/' . 'x' x 128, { deviceId => 'x' x 128 })->{status},
        200, 'the longest id');
    error_is(registry('GET', '/DEV-1'), 404, 'DeviceNotFound', 'case counts');
};


subtest 'registry: bulk and list' => sub {
    my $bulk = registry('POST', '', [
        { id => 'bulk-1', importMode => 'create' },
        { id => 'bulk-2', importMode => 'create', status => 'disabled' },
    ]);
    is($bulk->{status}, 200, 'bulk');
    ok($bulk->{data}{isSuccessful}, 'isSuccessful');
    is(registry('GET', '/bulk-2')->{data}{status}, 'disabled', 'as told');

    my $mixed = registry('POST', '/', [
        { id => 'bulk-1', importMode => 'create' },
        { id => 'bulk-3', importMode => 'Create' },
    ]);
    is($mixed->{status}, 400, 'one exists');
    is($mixed->{data}{errors}[0]{deviceId}, 'bulk-1', 'it is named');
    is($mixed->{data}{errors}[0]{errorCode}, 'DeviceAlreadyExists', 'why');
    is(registry('GET', '/bulk-3')->{status}, 200, 'the other is there');

    my $etag = registry('GET', '/bulk-1')->{data}{etag};
    my $update = registry('POST', '', [
        { id => 'bulk-1', importMode => 'UpdateIfMatchETag',
            etag => $etag, status => 'disabled' },
        { id => 'bulk-3', importMode => 'UpdateIfMatchETag', etag => 'x' },
    ]);
    is($update->{data}{errors}[0]{errorCode}, 'PreconditionFailed', 'etag');
    is(registry('GET', '/bulk-1')->{data}{status}, 'disabled', 'updated');

    is(registry('POST', '', [map { { id => "bulk-$_",
        importMode => 'Delete' } } 1 .. 3])->{status}, 200, 'deleted');
    is(registry('GET', '/bulk-1')->{status}, 404, 'gone');

    error_is(registry('POST', '', [{ id => 'a' }, { id => 'a' }]), 400,
        'DeviceDefinedMultipleTimes', 'twice');
    error_is(registry('POST', '', [map { { id => "a$_" } } 0 .. 100]), 413,
        'TooManyDevices', '101 devices');

    my $list = registry('GET', '?top=2')->{data};
    is(scalar @$list, 2, 'list, top=2');
    error_is(registry('GET', '?top=1001'), 400, 'ArgumentInvalid', 'top');
};


subtest 'messages: single' => sub {
    $sim->control('DELETE', 'journal');

    my $bytes = join '', map { chr } 0 .. 255;
    my $sent = send_message('dev-1', $bytes, 'IoTHub-MessageId: m-1',
        'iothub-contenttype: application/json',
        'iothub-contentencoding: utf-8', 'dt-subject: part',
        'iothub-creationtimeutc: 2026-01-02T03:04:05.678Z',
        'iothub-app-Event: Temp erature', 'iothub-app-a!#$%&\'*+-.^_`|~: {}',
        'X-Other: kept out');
    is($sent->{status}, 204, 'taken');
    is($sent->{headers}{'content-length'}, '0', 'Content-Length: 0');
    ok(!exists $sent->{headers}{'content-type'}, 'no Content-Type');
    is(send_message('dev-2', '')->{status}, 204, 'empty');

    my $messages = $sim->control('GET', 'messages')->{data};
    is(scalar @$messages, 2, 'two messages');
    my $first = $messages->[0];
    is($first->{body}, $bytes, 'every byte');
    is($first->{device}, 'dev-1', 'device');
    is_deeply($first->{system}, { messageid => 'm-1',
        contenttype => 'application/json', contentencoding => 'utf-8',
        'dt-subject' => 'part',
        creationtimeutc => '2026-01-02T03:04:05.678Z' }, 'system');
    is_deeply($first->{properties}, { Event => 'Temp erature',
        'a!#$%&\'*+-.^_`|~' => '{}' }, 'properties');
    is($messages->[1]{body}, '', 'the empty body');
    is(scalar @{ $sim->control('GET', "messages?after=$first->{n}")->{data}
        }, 1, 'after');

    my $max  = 256 * 1024;
    my @rows = (
        ['the largest', 'x' x $max, [], 204, '-'],
        ['too large', 'x' x ($max + 1), [], 413, 'MessageTooLarge'],
        ['too large with its properties', 'x' x ($max - 3),
            ['iothub-app-ab: cd'], 413, 'MessageTooLarge'],
        ['largest with its properties', 'x' x ($max - 4),
            ['iothub-app-ab: cd'], 204, '-'],
        ['too large with its system properties', 'x' x ($max - 1),
            ['iothub-messageid: ab'], 413, 'MessageTooLarge'],
        ['illegal message id', 'x', ['iothub-messageid: a b'], 400,
            'ArgumentInvalid'],
        ['long message id', 'x', ['iothub-messageid: ' . 'a' x 129], 400,
            'ArgumentInvalid'],
        ['time with an offset', 'x', ['iothub-creationtimeutc: '
            . '2026-01-02T03:04:05+01:00'], 400, 'ArgumentInvalid'],
        ['encoding of JSON', 'x', ['iothub-contenttype: application/json',
            'iothub-contentencoding: gzip'], 400,
            'InvalidContentEncodingOrType'],
        ['value beyond ASCII', 'x', ["iothub-app-a: \xc3\xa9"], 400,
            'ArgumentInvalid'],
        ['reserved name', 'x', ['iothub-app-connectionDeviceId: a'], 400,
            'ArgumentInvalid'],
        ['no name', 'x', ['iothub-app-: a'], 400, 'ArgumentInvalid'],
    );
    for my $row (@rows) {
        my ($name, $body, $headers, $status, $error) = @$row;
        error_is(send_message('dev-1', $body, @$headers), $status, $error,
            $name);
    }
    error_is(send_message('nobody'), 404, 'DeviceNotFound', 'no such device');
};


subtest 'messages: batch' => sub {
    $sim->control('DELETE', 'journal');
    my $type = 'Content-Type: application/vnd.microsoft.iothub.json';

    my $sent = send_message('dev-1', encode_json([
        { body => encode_base64("\x00\xffa", ''),
            properties => { 'iothub-app-x' => 'y',
                'iothub-messageid' => 'm' } },
        { body => 'text', base64Encoded => JSON::PP::false },
    ]), $type);
    is($sent->{status}, 204, 'taken');

    my $messages = $sim->control('GET', 'messages')->{data};
    is_deeply([map { $_->{body} } @$messages], ["\x00\xffa", 'text'],
        'bodies');
    is_deeply($messages->[0]{properties}, { x => 'y' }, 'properties');
    is_deeply($messages->[0]{system}, { messageid => 'm' }, 'system');

    my ($entry) = $sim->journal;
    is($entry->{op}, 'batch', 'journal: op');
    is_deeply([map { $_->{body} } @{ $entry->{messages} }],
        ["\x00\xffa", 'text'], 'journal: messages');

    my $body = encode_base64('x', '');
    my @rows = (
        ['no JSON', '[', 400, 'IotHubFormatError'],
        ['no array', '{}', 400, 'IotHubFormatError'],
        ['empty', '[]', 400, 'IotHubFormatError'],
        ['no body', '[{}]', 400, 'IotHubFormatError'],
        ['no base64', '[{"body":"a b"}]', 400, 'IotHubFormatError'],
        ['body no string', '[{"body":{}}]', 400, 'IotHubFormatError'],
        ['value no string',
            qq([{"body":"$body","properties":{"iothub-app-a":[]}}]),
            400, 'IotHubFormatError'],
        ['unknown property', qq([{"body":"$body","properties":{"a":"b"}}]),
            400, 'ArgumentInvalid'],
        ['too large', '[' . join(',', map { qq({"body":"$body"}) }
            1 .. 20_000) . ']', 413, 'MessageTooLarge'],
    );
    for my $row (@rows) {
        my ($name, $text, $status, $error) = @$row;
        error_is(send_message('dev-1', $text, $type), $status, $error, $name);
    }
};


subtest 'devices: disabled, settling, throttled, over quota' => sub {
    $sim->control('PUT', 'devices/off', { status => 'disabled' });
    for my $row ([404, 'DeviceNotFound'], [403, 'DeviceDisabled'],
        [401, 'IotHubUnauthorized'])
    {
        $sim->control('POST', 'settings', { disabled_status => $row->[0] });
        error_is(send_message('off'), @$row, "disabled: $row->[0]");
    }
    is(registry('GET', '/off')->{data}{status}, 'disabled', 'GET tells');
    $sim->control('PUT', 'devices/off', { status => 'enabled' });
    is(send_message('off')->{status}, 204, 'enabled again');

    $sim->control('POST', 'settings', { settle => 400 });
    registry('PUT', '/young', { deviceId => 'young' });
    my $created = time;
    error_is(send_message('young'), 404, 'DeviceNotFound', 'too young');
    is(registry('GET', '/young')->{status}, 200, 'but the registry has it');
    sleep 0.02 while time < $created + 0.4;
    is(send_message('young')->{status}, 204, 'settled');

    $sim->control('POST', 'settings', { settle => undef,
        registry_rate => '3/m', send_rate => 5, retry_after => 7 });
    my @statuses = map { registry('GET', '/dev-1') } 1 .. 4;
    is("@{[map { $_->{status} } @statuses]}", '200 200 200 429',
        'registry rate');
    is($statuses[3]{headers}{'retry-after'}, 7, 'Retry-After');
    is($statuses[3]{headers}{'iothub-errorcode'}, 'ThrottlingException',
        'named');
    is(registry('POST', '', [{ id => 't' }])->{status}, 429, 'bulk too');
    my $throttled = grep { send_message('dev-1')->{status} == 429 } 1 .. 30;
    cmp_ok($throttled, '>=', 5, 'send rate');

    $sim->control('POST', 'settings', { registry_rate => '3/m',
        send_rate => undef, retry_after => undef, quota => 2 });
    is(registry('POST', '', [map { { id => "t$_" } } 1 .. 4])->{status}, 429,
        'a bulk of four is four');
    is(send_message('dev-1')->{status}, 204, "quota: $_") for 1, 2;
    error_is(send_message('dev-1'), 403, 'IotHubQuotaExceeded', 'quota: 3');

    my $settings = $sim->control('POST', 'settings',
        { registry_rate => undef, quota => undef, disabled_status => 404 });
    is($settings->{data}{quota}, undef, 'no quota');
    is(send_message('dev-1')->{status}, 204, 'and on it goes');
    is($sim->control('POST', 'settings', { qouta => 1 })->{status}, 400,
        'no such setting');
};


subtest 'HTTP: framing' => sub {
    my $events = '/devices/dev-1/messages/events?' . VERSION;
    my @auth   = (authorization());
    my $socket = $sim->connect;
    my $buffer;
    my $ask = sub (@request) {
        $socket->syswrite(IoTHub::Simulator::Process::format_request(
            @request));
        return IoTHub::Simulator::Process::read_answer($socket, \$buffer);
    };

    my $chunked = "5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: x\r\n\r\n";
    is($ask->('POST', $events, [@auth, 'Transfer-Encoding: chunked'],
        $chunked)->{status}, 204, 'chunked');
    is(($sim->journal)[-1]{body}, 'hello world', 'body');
    is($ask->('POST', $events, \@auth, 'again')->{status}, 204,
        'same connection');

    my $first = ($sim->journal)[-2];
    my $last  = ($sim->journal)[-1];
    is($last->{conn}, $first->{conn}, 'journal: conn');
    is($last->{reqn}, $first->{reqn} + 1, 'journal: reqn');

    my $request = IoTHub::Simulator::Process::format_request('POST',
        $events, \@auth, 'piped');
    $socket->syswrite($request x 20);
    my @piped = map { IoTHub::Simulator::Process::read_answer($socket,
        \$buffer)->{status} } 1 .. 20;
    is_deeply(\@piped, [(204) x 20], 'pipelined');

    for my $byte (split //, $request) {
        $socket->syswrite($byte);
    }
    is(IoTHub::Simulator::Process::read_answer($socket, \$buffer)->{status},
        204, 'byte by byte');

    $socket->syswrite(IoTHub::Simulator::Process::format_request('POST',
        $events, [@auth, 'Expect: 100-continue', 'Content-Length: 2']));
    IO::Select->new($socket)->can_read(10);
    $socket->sysread(my $continue, 1000);
    is($continue, "HTTP/1.1 100 Continue\r\n\r\n", '100 Continue');
    $socket->syswrite('ab');
    is(IoTHub::Simulator::Process::read_answer($socket, \$buffer)->{status},
        204, 'and the answer');

    my $closing = $ask->('POST', $events, [@auth, 'Connection: close'], 'x');
    is($closing->{headers}{connection}, 'close', 'Connection: close');
    is($socket->sysread(my $rest, 1), 0, 'closed');

    my $host = 'Host: ' . HOST;
    my @rows = (
        ['no length', "POST $events HTTP/1.1\r\n$host\r\n\r\n", 411],
        ['both lengths', "POST $events HTTP/1.1\r\n$host\r\nContent-Length:"
            . " 1\r\nTransfer-Encoding: chunked\r\n\r\nx", 400],
        ['broken chunk', "POST $events HTTP/1.1\r\n$host\r\n"
            . "Transfer-Encoding: chunked\r\n\r\nxx\r\n", 400],
        ['length no number', "POST $events HTTP/1.1\r\n$host\r\n"
            . "Content-Length: 1, 1\r\n\r\nx", 400],
        ['no Host', "GET /devices/dev-1 HTTP/1.1\r\n\r\n", 400],
        ['another Host', "GET / HTTP/1.1\r\nHost: fabrikam\r\n\r\n", 400],
        ['broken escape', "GET /devices/%zz HTTP/1.1\r\n$host\r\n\r\n", 400],
        ['folded header', "GET / HTTP/1.1\r\n$host\r\nA: b\r\n c\r\n\r\n",
            400],
        ['control in a header', "GET / HTTP/1.1\r\n$host\r\nA: b\x01\r\n\r\n",
            400],
        ['blank before the colon', "GET / HTTP/1.1\r\n$host\r\nA : b\r\n\r\n",
            400],
        ['long head', "GET / HTTP/1.1\r\n$host\r\nA: " . 'x' x 17_000
            . "\r\n\r\n", 400],
        ['no HTTP', "hello\r\n\r\n", 400],
        ['dots in a path', "GET /devices/../x HTTP/1.1\r\n$host\r\n\r\n",
            404],
    );
    for my $row (@rows) {
        my ($name, $bytes, $status) = @$row;
        my $fresh = $sim->connect;
        $fresh->syswrite($bytes);
        is(IoTHub::Simulator::Process::read_answer($fresh)->{status},
            $status, $name);
    }
};


subtest 'faults: answers' => sub {
    my @rows = (
        ['status only', { status => 429 }, 429, 'ThrottlingException'],
        ['code only', { code => 404012 }, 404, 'IotHubFailingOver'],
        ['name only', { error => 'ServerBusy' }, 503, 'ServerBusy'],
        ['status and code', { status => 400, code => 400030 }, 400,
            'ConnectionRejected'],
        ['unknown to the table', { status => 499 }, 499, 'Unknown'],
        ['empty', { status => 500, format => 'empty' }, 500, '-'],
        ['html', { status => 502, format => 'html' }, 502, '-'],
        ['garbage', { status => 500, format => 'garbage' }, 500, '-'],
        ['a success that is none', { status => 200 }, 200, '-'],
    );
    for my $row (@rows) {
        my ($name, $rule, $status, $error) = @$row;
        $sim->control('POST', 'faults', [{ op => 'send', times => 1,
            %$rule }]);
        error_is(send_message('dev-1'), $status, $error, $name);
        is(send_message('dev-1')->{status}, 204, "$name: used up");
    }

    my $fault = sub ($rule, @rules) {
        my $set = $sim->control('POST', 'faults', [$rule, @rules]);
        is($set->{status}, 200, 'rules taken') or diag $set->{body};
        return;
    };

    $fault->({ op => 'send', status => 400, code => 400030, format => 2 });
    my $inner = decode_json(decode_json(send_message('dev-1')
        ->{body})->{Message});
    is($inner->{errorCode}, 400030, 'format 2: a code within a string');

    $fault->({ op => 'send', status => 503, retry_after => '3',
        message => 'Not "now"', headers => { 'X-Extra' => 'e',
        Date => 'Thu, 01 Jan 1970 00:00:00 GMT' } });
    my $answer = send_message('dev-1');
    is($answer->{headers}{'retry-after'}, 3, 'Retry-After');
    is($answer->{headers}{'x-extra'}, 'e', 'a header more');
    like($answer->{headers}{date}, qr/1970/, 'a header instead');
    like(decode_json($answer->{body})->{Message}, qr/;Not "now"\z/, 'text');

    $fault->({ op => 'send', status => 503, retry_after => 'date+86400' });
    $answer = send_message('dev-1')->{headers};
    my $time = qr/\d\d:\d\d:\d\d GMT/;
    like($answer->{'retry-after'}, qr/^\w{3}, \d\d \w{3} \d{4} $time\z/,
        'Retry-After: a date');
    isnt($answer->{'retry-after'} =~ s/ $time//r,
        $answer->{date} =~ s/ $time//r, 'Retry-After: of another day');

    $fault->({ op => 'get', oversize => 300_000 });
    is(length registry('GET', '/dev-1')->{body}, 300_000, 'oversize');

    $fault->({ op => 'send', interim => 103, delay => 200 });
    my $start = time;
    $answer = send_message('dev-1');
    is("@{ $answer->{interim} } $answer->{status}", '103 204', 'interim');
    cmp_ok(time - $start, '>=', 0.2, 'delay');
    my $shortest = 10;
    for (1 .. 3) {
        $start = time;
        send_message('dev-1');
        $shortest = time - $start if time - $start < $shortest;
    }
    cmp_ok($shortest, '<', 0.6, 'delay, and no longer');

    $fault->({ op => 'send', accept => JSON::PP::true, status => 202 });
    is(join(' ', map { send_message($_)->{status} } 'dev-1', 'nobody'),
        '202 404', 'another success hides no failure');

    $fault->({ op => 'send', raw => "HTTP/1.1 204 No\r\nX: \xff\r\n\r\n" });
    is(send_message('dev-1')->{headers}{x}, "\xff", 'raw');
    is(($sim->journal)[-1]{status}, 204, 'raw: its status in the journal');

    $fault->({ op => 'send|get', device_re => '^dev-[12]$', after => 1,
        times => 2, status => 500, name => 'mine' },
        { device => 'dev-2', status => 503 });
    is(join(' ', map { $_->{status} } send_message('dev-1'),
        registry('GET', '/dev-1'), send_message('dev-1'),
        send_message('dev-1'), send_message('dev-2')),
        '204 500 500 204 503', 'op, device_re, after, times, second rule');
    my $rules = $sim->control('GET', 'faults')->{data};
    is_deeply([map { [@$_{qw(matches hits)}] } @$rules], [[5, 2], [1, 1]],
        'hit counts');
    is(($sim->journal('?status=500'))[-1]{fault}, 'mine', 'journal: fault');

    $fault->({ op => 'send', probability => 0.5, status => 500 });
    my $hits = grep { send_message('dev-1')->{status} == 500 } 1 .. 60;
    ok($hits > 5 && $hits < 55, "probability: $hits of 60");

    for my $wrong ({ statsu => 1 }, { op => 'put' }, { close => 'later' },
        { device_re => '(' }, { status => 42 }, 'x')
    {
        is($sim->control('POST', 'faults', [$wrong])->{status}, 400,
            'refused: ' . encode_json([$wrong]));
    }
    is(scalar @{ $sim->control('GET', 'faults')->{data} }, 1,
        'wrong rules replace nothing');
    $sim->control('POST', 'faults', []);
};


subtest 'faults: connections' => sub {
    $sim->control('DELETE', 'journal');
    my @rows = (
        # name, rule, whole, status, reset, accepted
        ['before', { close => 'before' }, 0, 0, 0, 0],
        ['middle', { close => 'middle', accept => JSON::PP::true },
            0, 0, 0, 1],
        ['middle of a body', { close => 'middle', status => 500 },
            0, 500, 0, 0],
        ['request', { close => 'request' }, 0, 0, 0, 0],
        ['reset', { reset => JSON::PP::true }, 0, 0, 1, 0],
        ['reset in the middle', { reset => JSON::PP::true,
            close => 'middle', status => 500 }, 0, undef, 1, 0],
        ['lost answer', { close => 'before', accept => JSON::PP::true },
            0, 0, 0, 1],
        ['lost by a reset', { reset => JSON::PP::true,
            accept => JSON::PP::true }, 0, 0, 1, 1],
        ['500 although it happened', { status => 500,
            accept => JSON::PP::true }, 1, 500, undef, 1],
    );
    for my $row (@rows) {
        my ($name, $rule, $whole, $status, $reset, $accepted) = @$row;
        $sim->control('POST', 'faults', [{ op => 'send', name => $name,
            %$rule }]);
        my $answer = send_message('dev-1', 'body');
        is($answer->{whole}, $whole, "$name: whole");
        is($answer->{status}, $status, "$name: status") if defined $status;
        is($answer->{reset} // 0, $reset, "$name: reset") if defined $reset;

        my $entry = ($sim->journal)[-1];
        is($entry->{fault}, $name, "$name: journal");
        is($entry->{status}, $whole ? $status : 0, "$name: status told");
        is($entry->{accepted} ? 1 : 0, $accepted, "$name: accepted");
    }
    is(scalar @{ $sim->control('GET', 'messages')->{data} }, 4,
        'accepted messages are there');

    # as soon as the head is there
    $sim->control('POST', 'faults', [{ close => 'request' }]);
    my $socket = $sim->connect;
    $socket->syswrite(IoTHub::Simulator::Process::format_request('POST',
        '/devices/dev-1/messages/events?' . VERSION,
        [authorization(), 'Content-Length: 100000']));
    is(IoTHub::Simulator::Process::read_answer($socket)->{status}, 0,
        'closed before the body came');

    # hangs, and others do not
    $sim->control('POST', 'faults', [{ device => 'dev-2',
        hang => JSON::PP::true }]);
    my $hung = $sim->connect;
    $hung->syswrite(IoTHub::Simulator::Process::format_request('POST',
        '/devices/dev-2/messages/events?' . VERSION, [authorization()],
        'x'));
    is($sim->control('GET', 'wait?op=send&device=dev-2&timeout=5000')
        ->{status}, 200, 'hang: it arrived');
    is(send_message('dev-1')->{status}, 204, 'hang: another goes on');
    ok(!IO::Select->new($hung)->can_read(0.1), 'hang: no byte');
    $sim->control('POST', 'faults', []);
};


subtest 'journal and waiting' => sub {
    $sim->control('DELETE', 'journal');
    is(scalar $sim->journal, 0, 'cleared');

    my $waiting = $sim->connect;
    $waiting->syswrite(IoTHub::Simulator::Process::format_request('GET',
        '/simulator/wait?op=send&count=3&timeout=20000'));
    send_message('dev-1', 'x', 'IoTHub-MessageId: m') for 1 .. 2;
    ok(!IO::Select->new($waiting)->can_read(0.1), 'two are not three');
    send_message('dev-1');
    my $answer = IoTHub::Simulator::Process::read_answer($waiting);
    is($answer->{status}, 200, 'three');
    is(decode_json($answer->{body})->{count}, 3, 'counted');
    is($sim->control('GET', 'wait?op=send&count=4&timeout=50')->{status},
        408, 'a time that runs out');
    is($sim->control('GET', 'wait?op=send&count=3')->{status}, 200,
        'those before count');

    my @entries = $sim->journal;
    my $entry   = $entries[0];
    is($entry->{uri}, '/devices/dev-1/messages/events?' . VERSION, 'uri');
    is($entry->{path}, '/devices/dev-1/messages/events', 'path');
    is($entry->{headers}{'iothub-messageid'}, 'm', 'headers');
    ok((grep { $_->[0] eq 'IoTHub-MessageId' } @{ $entry->{header_list} }),
        'names as sent');
    is($entry->{headers}{authorization}, 'SharedAccessSignature',
        'the scheme of Authorization, no more');
    is_deeply([sort keys %{ $entry->{token} }], [qw(key se skn sr)],
        'the token without its signature');
    is($entry->{token}{key}, 'primary', 'its key');
    cmp_ok(abs($entry->{time} - time), '<', 60, 'time');
    is(scalar($sim->journal("?after=$entries[1]{n}")), 1, 'after');
    my ($brief) = $sim->journal('?brief=1');
    ok(!exists $brief->{body} && $brief->{op} eq 'send', 'brief');

    my $counts = $sim->control('GET', 'connections')->{data};
    cmp_ok($counts->{accepted}, '>=', 100, 'connections counted');
    my $idle = $sim->connect;
    $idle->syswrite(IoTHub::Simulator::Process::format_request('GET',
        '/devices/dev-1?' . VERSION, [authorization()]));
    IoTHub::Simulator::Process::read_answer($idle);
    cmp_ok($sim->control('GET', 'connections')->{data}{open}, '>=', 1,
        'open');
    $sim->control('DELETE', 'connections');
    is($idle->sysread(my $byte, 1), 0, 'closed when told');
};


subtest '200 connections at once' => sub {
    $sim->control('DELETE', 'journal');
    $sim->control('POST', 'faults', [
        { device => 'dev-2', hang => JSON::PP::true },
        { op => 'send', after => 50, times => 50, delay => 300 },
    ]);
    my $before = $sim->control('GET', 'connections')->{data};

    my $hung = $sim->connect;
    $hung->syswrite(IoTHub::Simulator::Process::format_request('POST',
        '/devices/dev-2/messages/events?' . VERSION, [authorization()], ''));

    my $request = IoTHub::Simulator::Process::format_request('POST',
        '/devices/dev-1/messages/events?' . VERSION, [authorization()],
        'x' x 1000);
    my @sockets = map { $sim->connect } 1 .. 200;
    my @buffers = ('') x 200;
    my $start   = time;

    my %statuses;
    for my $round (1 .. 5) {
        $_->syswrite($request) for @sockets;
        for my $i (0 .. $#sockets) {
            my $answer = IoTHub::Simulator::Process::read_answer(
                $sockets[$i], \$buffers[$i]);
            $statuses{ $answer->{status} }++;
        }
    }
    my $seconds = time - $start;
    is_deeply(\%statuses, { 204 => 1000 }, '1000 messages');
    cmp_ok($seconds, '<', 10, sprintf 'in %.2f s', $seconds);

    my $counts = $sim->control('GET', 'connections')->{data};
    is($counts->{accepted} - $before->{accepted}, 201, 'connections');
    is(scalar @{ $sim->control('GET', 'messages')->{data} }, 1000,
        'all in the journal');
    $sim->control('POST', 'faults', []);
};


subtest 'policies replaced' => sub {
    is(send_message('dev-1')->{status}, 204, 'before');
    is($sim->control('POST', 'policies', { webhook =>
        { primary => $OTHER, secondary => $SECOND } })->{status}, 200, 'set');
    is(send_message('dev-1')->{status}, 401, 'the old key is refused');
    is(send_message('dev-1', 'x', authorization(key => $OTHER))->{status},
        204, 'the new one is taken');
    $sim->control('POST', 'policies', { webhook =>
        { primary => $KEY, rights => ['RegistryRead'] } });
    is(send_message('dev-1')->{status}, 401, 'rights');
    $sim->control('POST', 'policies');
    is(send_message('dev-1')->{status}, 204, 'back');

    $sim->control('POST', 'settings', { clock_offset => 3901 });
    error_is(send_message('dev-1'), 401, 'IotHubUnauthorized',
        'the hub\'s clock is ahead');
    $sim->control('POST', 'settings', { clock_offset => undef });
};


is($sim->stop, 0, 'ends by SIGTERM');


subtest 'TLS' => sub {
    my $tls = IoTHub::Simulator::Process->start('--tls', @POLICIES,
        '--device', 'dev-1');
    my $socket = $tls->connect;
    ok($socket, 'the certificate is verified')
        or diag $IO::Socket::SSL::SSL_ERROR;

    my $request = IoTHub::Simulator::Process::format_request('POST',
        '/devices/dev-1/messages/events?' . VERSION, [authorization()],
        'x' x 100_000);
    my $buffer;
    for (1 .. 3) {
        $socket->print($request);
        is(IoTHub::Simulator::Process::read_answer($socket, \$buffer)
            ->{status}, 204, "message $_");
    }

    my ($entry) = $tls->journal;
    is($entry->{sni}, HOST, 'journal: SNI');
    is($entry->{tls}, 'TLSv1_3', 'journal: version');

    my $plain = $tls->connect(plain => 1);
    $plain->syswrite($request);
    is(IoTHub::Simulator::Process::read_answer($plain)->{status}, 403,
        'no message without TLS');

    $tls->control('POST', 'faults', [{ close => 'middle', status => 500 }]);
    $socket->print($request);
    is(IoTHub::Simulator::Process::read_answer($socket, \$buffer)->{whole},
        0, 'a fault over TLS');
    is(Net::SSLeay::get_shutdown($socket->_get_ssl_object)
        & Net::SSLeay::RECEIVED_SHUTDOWN(), 0, 'without close_notify');
    $tls->control('POST', 'faults', []);
    $socket = $tls->connect;
    $socket->print(IoTHub::Simulator::Process::format_request('GET',
        '/devices/dev-1?' . VERSION, ['Connection: close']));
    is(IoTHub::Simulator::Process::read_answer($socket)->{status}, 401,
        'the last answer');
    is($socket->sysread(my $rest, 1), 0, 'the end');
    isnt(Net::SSLeay::get_shutdown($socket->_get_ssl_object)
        & Net::SSLeay::RECEIVED_SHUTDOWN(), 0, 'with close_notify');
    $tls->control('POST', 'faults', [{ reset => JSON::PP::true }]);
    $socket = $tls->connect;
    $socket->print($request);
    is(IoTHub::Simulator::Process::read_answer($socket)->{status}, 0,
        'a reset over TLS');

    my @many = grep { defined } map { $tls->connect } 1 .. 100;
    is(scalar @many, 100, '100 connections');

    my $ca    = IoTHub::Simulator::Process::slurp($tls->{ca});
    my $again = IoTHub::Simulator::Process->start('--tls', '--dir',
        "$tls->{dir}");
    is(IoTHub::Simulator::Process::slurp($again->{ca}), $ca,
        'a restart keeps the authority');
    my $other = IoTHub::Simulator::Process->start('--tls',
        '--tls-version', '1.2');
    ok(!$tls->connect(ca => $other->{ca}), 'another authority: refused');
    is($other->connect->get_sslversion, 'TLSv1_2', 'only 1.2');
};


subtest 'the program' => sub {
    my $dir = File::Temp->newdir;
    open my $out, '>', "$dir/policies" or die $!;
    print $out "# policies\nwebhook:$OTHER\n";
    close $out;

    my @drawn = map {
        $sim = IoTHub::Simulator::Process->start('--seed', $_, @POLICIES,
            '--device', 'dev-1');
        $sim->control('POST', 'faults', [{ op => 'send', status => 500,
            probability => 0.5 }]);
        join ' ', map { send_message('dev-1')->{status} } 1 .. 30;
    } 7, 7, 8;
    is($drawn[0], $drawn[1], '--seed: chance repeats');
    isnt($drawn[0], $drawn[2], '--seed: another');

    $sim = IoTHub::Simulator::Process->start('--policy-file',
        "$dir/policies", '--journal', "$dir/journal", '--listen',
        '127.0.0.1:0', '--listen', '127.0.0.1:0', '--device', 'dev-1',
        '--hostname', HOST, '--hostname', 'second.azure-devices.net',
        '--settle', 60_000, '--quota', 1, '--idle', 0.3, '--keep', 2);
    is(send_message('dev-1')->{status}, 401, 'policy file');
    open $out, '>', "$dir/policies" or die $!;
    print $out "webhook:$KEY\n";
    close $out;
    kill 'HUP', $sim->{pid};
    my $until = time + 10;
    my $answer;
    do { $answer = send_message('dev-1') }
        while ($answer->{status} == 401 && time < $until);
    is($answer->{status}, 204, 'policy file: read again at SIGHUP');
    is(send_message('dev-1')->{status}, 403, '--quota');
    is(registry('PUT', '/young', { deviceId => 'young' })->{status}, 200,
        'created');
    is(send_message('young')->{status}, 404, '--settle');

    my $second = $sim->request('GET', '/devices/dev-1?' . VERSION,
        ['Host: second.azure-devices.net:443',
        authorization(sr => 'second.azure-devices.net')]);
    is($second->{status}, 200, 'a second name');

    my @lines = split /\n/,
        IoTHub::Simulator::Process::slurp("$dir/journal");
    my @all = map { decode_json($_) } @lines;
    is_deeply([map { $_->{n} } @all], [1 .. @all], 'journal file');
    is_deeply([$sim->journal], [@all[-2, -1]], '--keep: the last in memory');
    unlike("@lines", qr/sig=|\bsig\b/, 'no signature in the file');

    my $idle = $sim->connect;
    ok(IO::Select->new($idle)->can_read(10), '--idle');
    is($idle->sysread(my $byte, 1), 0, '--idle: closed');

    my $pid = delete $sim->{pid};
    is($sim->control('POST', 'shutdown')->{status}, 200, 'shutdown');
    is($sim->wait_end($pid), 0, 'it ended');

    # a parent that dies without a word
    pipe my $in, my $tell or die $!;
    my $parent = fork // die $!;
    if ($parent == 0) {
        # it will not clean up
        local $ENV{TMPDIR} = "$dir";
        my $child = IoTHub::Simulator::Process->start;
        syswrite $tell, "$child->{pid}\n";
        sleep 60;
        POSIX::_exit(0);
    }
    close $tell;
    chomp(my $orphan = <$in>);
    ok(kill(0, $orphan), 'a simulator of another parent');
    kill 'KILL', $parent;
    waitpid $parent, 0;
    $until = time + 10;
    sleep 0.02 while kill(0, $orphan) && time < $until;
    ok(!kill(0, $orphan), 'ends after its parent');

    for my $row (['--policy', 'x'], ['--policy', 'x:!!'],
        ['--listen', 'nowhere'], ['--nonsense'], ['--registry-rate', 'x'])
    {
        my $said = qx($^X @{[IoTHub::Simulator::Process::PROGRAM]} @$row 2>&1);
        isnt($?, 0, "refused: @$row");
        like($said, qr/\S/, 'and says why');
    }
};


# A wrapper that shows just what token_check() asks of an identity.

package Device;

sub new($class, $key) { return bless { key => $key }, $class }


sub signing_keys($self) {
    return MIME::Base64::decode_base64($self->{key});
}

package main;

done_testing;
