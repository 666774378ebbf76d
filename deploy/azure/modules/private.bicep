// A private address for the account inside a virtual network, and the DNS zone that leads the account's name to it.

param name string
param location string
param tags object
param accountId string
param subnetId string

@description('A zone that exists. Empty: one is made here, for the virtual network of the subnet.')
param zoneId string

var makeZone = empty(zoneId)

resource zone 'Microsoft.Network/privateDnsZones@2024-06-01' = if (makeZone) {
  name: 'privatelink.openai.azure.com'
  location: 'global'
  tags: tags
}

resource link 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = if (makeZone) {
  parent: zone
  name: name
  location: 'global'
  tags: tags
  properties: {
    registrationEnabled: false
    virtualNetwork: {
      id: split(subnetId, '/subnets/')[0]
    }
  }
}

resource endpoint 'Microsoft.Network/privateEndpoints@2024-07-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    subnet: {
      id: subnetId
    }
    privateLinkServiceConnections: [
      {
        name: 'account'
        properties: {
          privateLinkServiceId: accountId
          groupIds: ['account']
        }
      }
    ]
  }
}

resource records 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2024-07-01' = {
  parent: endpoint
  name: 'default'
  properties: {
    privateDnsZoneConfigs: [
      {
        name: 'openai'
        properties: {
          privateDnsZoneId: makeZone ? zone.id : zoneId
        }
      }
    ]
  }
}
