# Copyright (C) the ngx_http_iothub_module authors

# The identity registry: PUT, GET, DELETE /devices/{id}, bulk, list.

package IoTHub::Simulator::Registry;

use v5.36;
use strict;
use warnings;

use IoTHub::Simulator::Errors qw(error_answer);
use IoTHub::Simulator::Identity;
use IoTHub::Simulator::JSON qw(json json_object json_decode);

use constant {
    BULK_MAX => 100,
    LIST_MAX => 1000,
};


sub new($class) {
    return bless { devices => {} }, $class;
}


sub find($self, $id) { return $self->{devices}{$id} }


sub all($self) {
    return map { $self->{devices}{$_} } sort keys %{ $self->{devices} };
}


# Without a request: for the control calls.

sub put($self, $id, $members, $now = 0) {
    my $device = $self->{devices}{$id} = IoTHub::Simulator::Identity->new(
        $id, $members, $self->{devices}{$id});
    $device->{settled} = $now;
    return $device;
}


sub remove($self, $id) { return delete $self->{devices}{$id} }


sub ok($status, $value) {
    return {
        status => $status,
        type   => 'application/json; charset=utf-8',
        body   => json($value),
    };
}


sub device_answer($device) {
    my $answer = ok(200, $device->json_members);
    $answer->{headers} = [[ETag => qq("$device->{etag}")]];
    return $answer;
}


# Whether an If-Match names the device as it is: *, "*", etag or "etag".

sub matches($condition, $device) {
    my $etag = $condition =~ s/^"(.*)"\z/$1/sr;
    return $etag eq '*' || $etag eq $device->{etag};
}


# Each takes the request, and settles, the time from which sends find a new
# identity; each returns (answer, whether the registry changed).

sub create_or_update($self, $request, $settles) {
    my $id     = $request->{device};
    my $device = $self->{devices}{$id};

    my $type = $request->{headers}{'content-type'} // '';
    return error_answer(415000, 'The content type is not application/json.')
        unless $type =~ m{^application/json\s*(?:;|\z)}i;

    my $members = json_decode($request->{body});
    return error_answer(400006, 'The body is not a JSON object.')
        unless ref $members eq 'HASH';
    return error_answer(400005, 'deviceId is missing.')
        unless defined $members->{deviceId};
    return error_answer(400004, 'deviceId is not the one of the path.')
        unless $members->{deviceId} eq $id;

    my $wrong = IoTHub::Simulator::Identity->wrong($members);
    return error_answer(400004, $wrong) if $wrong;

    my $condition = $request->{headers}{'if-match'};

    if (defined $condition) {
        return error_answer(404001) unless $device;
        return error_answer(412001) unless matches($condition, $device);
        $settles = $device->{settled};

    } elsif ($device) {
        return error_answer(409001);
    }

    return (device_answer($self->put($id, $members, $settles)), 1);
}


sub get($self, $request, $settles) {
    my $device = $self->{devices}{ $request->{device} }
        or return error_answer(404001);
    return device_answer($device);
}


sub erase($self, $request, $settles) {
    my $device = $self->{devices}{ $request->{device} }
        or return error_answer(404001);

    my $condition = $request->{headers}{'if-match'};
    return error_answer(412001)
        if defined $condition && !matches($condition, $device);

    $self->remove($request->{device});
    return ({ status => 204 }, 1);
}


sub list($self, $request, $settles) {
    my $top = $request->{query}{top} // LIST_MAX;
    return error_answer(400004, 'top is not 1 to 1000.')
        unless $top =~ /^[0-9]{1,4}\z/ && $top >= 1 && $top <= LIST_MAX;

    my @devices = $self->all;
    splice @devices, $top if @devices > $top;
    return ok(200, [map { $_->json_members } @devices]);
}


my %BULK = (
    create            => { missing => 1 },
    update            => { present => 1 },
    updateifmatchetag => { present => 1, etag => 1 },
    delete            => { present => 1, remove => 1 },
    deleteifmatchetag => { present => 1, etag => 1, remove => 1 },
    createorupdate    => {},
);


sub bulk($self, $request, $settles) {
    my $entries = json_decode($request->{body});
    return error_answer(400006, 'The body is not a JSON array.')
        unless ref $entries eq 'ARRAY' && @$entries;
    return error_answer(413002, 'At most 100 devices at once.')
        if @$entries > BULK_MAX;

    my (%seen, @errors);
    for my $entry (@$entries) {
        return error_answer(400006, 'An entry is not a JSON object.')
            unless ref $entry eq 'HASH';
        return error_answer(400005, 'id is missing.')
            unless defined $entry->{id};
        return error_answer(400011, "'$entry->{id}' is there twice.")
            if $seen{ $entry->{id} }++;
    }

    my $changed = 0;
    for my $entry (@$entries) {
        my $error = $self->bulk_entry($entry, $settles);
        if ($error) {
            push @errors, json_object(
                deviceId    => $entry->{id},
                errorCode   => $error->[0],
                errorStatus => $error->[1],
                moduleId    => '',
                operation   => $entry->{importMode} // 'create',
            );
        } else {
            $changed = 1;
        }
    }

    my $answer = ok(@errors ? 400 : 200, json_object(
        isSuccessful => @errors ? \0 : \1,
        errors       => \@errors,
        warnings     => [],
    ));
    return ($answer, $changed);
}


sub bulk_entry($self, $entry, $settles) {
    my $id     = $entry->{id};
    my $device = $self->{devices}{$id};
    my $mode   = $BULK{ lc($entry->{importMode} // 'create') }
        or return ['ArgumentInvalid', 'There is no such importMode.'];
    my $etag   = $entry->{eTag} // $entry->{etag} // '';

    return ['ArgumentInvalid', 'The device id is not legal.']
        unless IoTHub::Simulator::Identity->legal_id($id);
    return ['DeviceAlreadyExists', 'The device exists already.']
        if $mode->{missing} && $device;
    return ['DeviceNotFound', 'The device is not registered.']
        if $mode->{present} && !$device;
    return ['PreconditionFailed', 'The etag is another one.']
        if $mode->{etag} && !matches($etag, $device);

    if ($mode->{remove}) {
        $self->remove($id);
        return undef;
    }

    my $wrong = IoTHub::Simulator::Identity->wrong($entry);
    return ['ArgumentInvalid', $wrong] if $wrong;

    $self->put($id, $entry, $device ? $device->{settled} : $settles);
    return undef;
}

1;
